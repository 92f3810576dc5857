import { createHash, type Hash } from 'node:crypto';
import type { FrameQueue } from '../../../src/sandbox/layer-writer.js';
import type { StargzChunk } from './stargz-tail.js';

/** Where contents and members are cut. */
export interface StargzCuts {
  /** Bytes of a chunk, at least 1: a longer content has several. */
  readonly chunkBytes: number;
  /** A chunk begins a member only when the member before it has at least so many decoded bytes; else it goes there. */
  readonly minChunkBytes: number;
}

/** A chunk that waits for its member. */
interface OpenChunk {
  readonly place: Omit<StargzChunk, 'digest'>;
  readonly hash: Hash;
  leftBytes: number;
}

/** Cuts one content into chunks of one size, for members. */
export class StargzContent {
  readonly chunks: StargzChunk[] = [];
  readonly #members: StargzMembers;
  readonly #sizeBytes: number;
  readonly #cuts: StargzCuts;
  /** Of the whole content, if that is more than one chunk. */
  readonly #hash: Hash | undefined;
  #chunk: OpenChunk | undefined;
  #received = 0;
  #digest = '';

  constructor(members: StargzMembers, sizeBytes: number, cuts: StargzCuts) {
    this.#members = members;
    this.#sizeBytes = sizeBytes;
    this.#cuts = cuts;
    if (sizeBytes > cuts.chunkBytes) this.#hash = createHash('sha256');
  }

  /** sha256 of the content, once it is whole. */
  get digest(): string {
    return this.#digest;
  }

  /** Adds the next bytes of the content, which must not change. Returns whether it is complete. */
  push(bytes: Buffer): boolean {
    this.#hash?.update(bytes);
    for (let at = 0; at < bytes.length; ) {
      this.#chunk ??= this.#begin();
      const part = bytes.subarray(at, at + this.#chunk.leftBytes);
      at += part.length;
      this.#received += part.length;
      this.#members.add(part);
      this.#chunk.hash.update(part);
      this.#chunk.leftBytes -= part.length;
      if (this.#chunk.leftBytes === 0) this.#end(this.#chunk);
    }
    return this.#received === this.#sizeBytes;
  }

  #begin(): OpenChunk {
    const members = this.#members;
    if (members.openBytes >= this.#cuts.minChunkBytes) members.cut();
    const offset = this.#received;
    const sizeBytes = Math.min(this.#cuts.chunkBytes, this.#sizeBytes - offset);
    const place = { offset, sizeBytes, member: members.open, innerOffset: members.openBytes };
    return { place, hash: createHash('sha256'), leftBytes: sizeBytes };
  }

  #end({ place, hash }: OpenChunk): void {
    const digest = `sha256:${hash.digest('hex')}`;
    this.chunks.push({ ...place, digest });
    this.#chunk = undefined;
    if (this.#received < this.#sizeBytes) return;
    this.#digest = this.#hash === undefined ? digest : `sha256:${this.#hash.digest('hex')}`;
  }
}

/** A gzip member or zstd frame to be written to the blob. */
interface Member {
  /** Blob offset, -1 until it is written. */
  blobStart: number;
}

/** Gathers the bytes of a tar into members, and calls back when their offsets are known. */
export class StargzMembers {
  readonly #queue: FrameQueue;
  #parts: Buffer[] = [];
  #waiting: (() => void)[] = [];
  /** The member that the next bytes go into. */
  open: Member = { blobStart: -1 };
  /** Bytes in it so far. */
  openBytes = 0;

  constructor(queue: FrameQueue) {
    this.#queue = queue;
  }

  /** Adds the next bytes of the tar, which must not change. */
  add(bytes: Buffer): void {
    this.#parts.push(bytes);
    this.openBytes += bytes.length;
  }

  /** Calls `done` once the open member is written, after everything that waited before. */
  after(done: () => void): void {
    this.#waiting.push(done);
  }

  /** Ends the open member: the next bytes begin another one. */
  cut(): void {
    const member = this.open;
    const waiting = this.#waiting;
    this.#queue.add(Buffer.concat(this.#parts, this.openBytes), (start) => {
      member.blobStart = start;
      for (const done of waiting) done();
    });
    this.open = { blobStart: -1 };
    this.#parts = [];
    this.#waiting = [];
    this.openBytes = 0;
  }
}

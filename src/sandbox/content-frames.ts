import { createHash, type Hash, hash } from 'node:crypto';
import { Chunker, type Cut } from './chunker.js';
import type { FrameQueue } from './frame-queue.js';
import type { TocChunk } from './toc-text.js';

/**
 * Longer chunks (a hole has no limit) become several frames, to bound the memory of writers and
 * readers.
 */
export const FRAME_RAW_BYTES = 4 * 2 ** 20;

/** Writes one content as frames, one for each chunk. */
export class ContentFrames {
  readonly #queue: FrameQueue;
  readonly #sizeBytes: number;
  readonly #chunker = new Chunker();
  readonly #chunks: TocChunk[] = [];
  #hash: Hash | undefined;
  #digest = '';
  #chunkHash: Hash | undefined;
  /** Bytes that are not in a frame yet, and their offset in the content. */
  #parts: Buffer[] = [];
  #start = 0;
  #received = 0;
  /** The chunk at #start. */
  #open: TocChunk | undefined;
  #blobEnd = 0;

  constructor(queue: FrameQueue, sizeBytes: number) {
    this.#queue = queue;
    this.#sizeBytes = sizeBytes;
  }

  /** Adds the next bytes, which must not change. After the last ones, all frames are queued. */
  push(bytes: Buffer): void {
    this.#hashContent(bytes);
    this.#received += bytes.length;
    this.#parts.push(bytes);
    this.#cut(this.#chunker.push(bytes));
    if (this.#received === this.#sizeBytes) {
      this.#cut(this.#chunker.end());
      return;
    }
    while (this.#chunker.settledBytes - this.#start > FRAME_RAW_BYTES) {
      this.#frame(this.#start + FRAME_RAW_BYTES);
    }
  }

  /** The fields of the TOC, valid once the frames are written. */
  get toc(): { digest: string; blobEnd: number; chunks: readonly TocChunk[] } {
    return { digest: this.#digest, blobEnd: this.#blobEnd, chunks: this.#chunks };
  }

  #hashContent(bytes: Buffer): void {
    if (bytes.length === this.#sizeBytes) {
      this.#digest = `sha256:${hash('sha256', bytes)}`;
      return;
    }
    this.#hash ??= createHash('sha256');
    this.#hash.update(bytes);
    if (this.#received + bytes.length === this.#sizeBytes)
      this.#digest = `sha256:${this.#hash.digest('hex')}`;
  }

  #cut(cuts: readonly Cut[]): void {
    for (const { at, zeros } of cuts) {
      while (at - this.#start > FRAME_RAW_BYTES) this.#frame(this.#start + FRAME_RAW_BYTES);
      this.#frame(at);
      const chunk = this.#open!;
      chunk.sizeBytes = at - chunk.offset;
      chunk.zeros = zeros;
      chunk.digest = this.#chunkHash === undefined ? this.#digest : `sha256:${this.#chunkHash.digest('hex')}`;
      this.#open = undefined;
      this.#chunkHash = undefined;
    }
  }

  /** Queues a frame of the bytes up to `end`. */
  #frame(end: number): void {
    const raw = this.#shift(end - this.#start);
    this.#start = end;
    let chunk = this.#open;
    if (chunk === undefined) {
      chunk = { offset: end - raw.length, sizeBytes: 0, digest: '', zeros: false, blobStart: -1 };
      this.#open = chunk;
      this.#chunks.push(chunk);
    }
    if (raw.length < this.#sizeBytes) {
      this.#chunkHash ??= createHash('sha256');
      this.#chunkHash.update(raw);
    }
    const owner = chunk;
    this.#queue.add(raw, (start, blobEnd) => {
      if (owner.blobStart < 0) owner.blobStart = start;
      this.#blobEnd = blobEnd;
    });
  }

  /** Removes and returns the first `count` bytes. */
  #shift(count: number): Buffer {
    const parts: Buffer[] = [];
    let remaining = count;
    while (remaining > 0) {
      const part = this.#parts[0]!;
      if (part.length <= remaining) this.#parts.shift();
      else this.#parts[0] = part.subarray(remaining);
      parts.push(part.subarray(0, remaining));
      remaining -= Math.min(remaining, part.length);
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }
}

import { createHash, type Hash, hash } from 'node:crypto';
import { Chunker, type Cut } from './chunker.js';
import type { FrameQueue } from './frame-queue.js';
import type { TocChunk } from './toc-text.js';

/** A longer chunk (a hole has no limit) becomes several frames, so that neither end needs it in memory at once. */
export const FRAME_RAW_BYTES = 4 * 2 ** 20;

/** One content on its way into frames: a frame a chunk. */
export class ContentFrames {
  readonly #queue: FrameQueue;
  readonly #sizeBytes: number;
  readonly #chunker = new Chunker();
  readonly #chunks: TocChunk[] = [];
  #hash: Hash | undefined;
  #digest = '';
  #chunkHash: Hash | undefined;
  /** Bytes not yet in a frame, and where in the content they start. */
  #parts: Buffer[] = [];
  #start = 0;
  #received = 0;
  /** The chunk that #start lies in. */
  #open: TocChunk | undefined;
  #blobEnd = 0;

  constructor(queue: FrameQueue, sizeBytes: number) {
    this.#queue = queue;
    this.#sizeBytes = sizeBytes;
  }

  /** The next bytes of the content, which must stay as they are. After the last ones all frames are under way. */
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

  /** What the TOC states; to be asked after the frames have been written. */
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

  /** One frame of the bytes up to `end`. */
  #frame(end: number): void {
    const raw = this.#take(end - this.#start);
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

  #take(count: number): Buffer {
    const taken: Buffer[] = [];
    let left = count;
    while (left > 0) {
      const part = this.#parts[0]!;
      if (part.length <= left) this.#parts.shift();
      else this.#parts[0] = part.subarray(left);
      taken.push(part.subarray(0, left));
      left -= Math.min(left, part.length);
    }
    return taken.length === 1 ? taken[0]! : Buffer.concat(taken);
  }
}

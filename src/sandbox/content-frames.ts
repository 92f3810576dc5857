import { createHash, type Hash, hash } from 'node:crypto';
import type { TocChunk } from './chunked-metadata.js';
import type { FrameQueue } from './layer-writer.js';

/**
 * Cuts contents into chunks as the reference writer does (containers/storage,
 * pkg/chunked/compressor): after a byte at which a rolling checksum over 64 bytes ends in 16
 * one-bits (one byte in 65,536), and before and after every run of at least 1,024 zeros, which is a
 * chunk of its own.
 */

/** bup's rolling checksum: two sums over a window, with an offset added to each byte. */
const WINDOW = 64;
const OFFSET = 31;
const SUM1 = WINDOW * OFFSET;
const SUM2 = WINDOW * (WINDOW - 1) * OFFSET;
const SPLIT_MASK = 0xffff;

/** Shorter runs of zeros are ordinary data. */
const HOLE_BYTES = 1024;
const ZEROS = new Uint8Array(HOLE_BYTES);

/** The end of a chunk, as an offset in the content. */
export interface Cut {
  readonly at: number;
  readonly zeros: boolean;
}

/** Finds the cuts of one content, which comes in pieces of any size. */
export class Chunker {
  #sum1 = SUM1;
  #sum2 = SUM2;
  /** The 64 bytes before #at. */
  readonly #window = new Uint8Array(WINDOW);
  /** All bytes before this offset are in the checksum. */
  #at = 0;
  /** Zeros after #at; more may follow. */
  #zeros = 0;
  #lastCut = 0;
  #cuts: Cut[] = [];

  /** No further cut is before this offset. */
  get settledBytes(): number {
    return this.#zeros < HOLE_BYTES ? this.#at : this.#at + this.#zeros;
  }

  /** Adds the next bytes and returns the cuts found, in order. */
  push(bytes: Uint8Array): Cut[] {
    let start = 0;
    if (this.#zeros > 0) {
      while (start < bytes.length && bytes[start] === 0) start += 1;
      this.#moreZeros(start);
      if (start < bytes.length) this.#endZeros();
    }
    while (start < bytes.length) {
      const [from, to] = findZeros(bytes, start);
      this.#roll(bytes, start, from);
      this.#moreZeros(to - from);
      if (to < bytes.length) this.#endZeros();
      start = to;
    }
    return this.#flushCuts();
  }

  /** Returns the remaining cuts; the last one is the end of the content. */
  end(): Cut[] {
    this.#endZeros();
    this.#cut(false);
    return this.#flushCuts();
  }

  #flushCuts(): Cut[] {
    const cuts = this.#cuts;
    if (cuts.length > 0) this.#cuts = [];
    return cuts;
  }

  #cut(zeros: boolean): void {
    if (this.#at > this.#lastCut) this.#cuts.push({ at: this.#at, zeros });
    this.#lastCut = this.#at;
  }

  #moreZeros(count: number): void {
    const before = this.#zeros;
    this.#zeros += count;
    if (before < HOLE_BYTES && this.#zeros >= HOLE_BYTES) this.#cut(false);
  }

  #endZeros(): void {
    const count = this.#zeros;
    this.#zeros = 0;
    if (count < HOLE_BYTES) {
      this.#roll(ZEROS, 0, count);
      return;
    }
    this.#at += count;
    this.#cut(true);
    // 64 zeros reset the sums.
    this.#window.fill(0);
    this.#sum1 = SUM1;
    this.#sum2 = SUM2;
  }

  #roll(bytes: Uint8Array, start: number, end: number): void {
    const window = this.#window;
    const offset = this.#at - start;
    let sum1 = this.#sum1;
    let sum2 = this.#sum2;
    for (let at = start; at < end; at += 1) {
      const drop = at - start < WINDOW ? window[at - start]! : bytes[at - WINDOW]!;
      sum1 = (sum1 + bytes[at]! - drop) | 0;
      sum2 = (sum2 + sum1 - WINDOW * (drop + OFFSET)) | 0;
      if ((sum2 & SPLIT_MASK) === SPLIT_MASK) {
        this.#at = offset + at + 1;
        this.#cut(false);
      }
    }
    this.#sum1 = sum1;
    this.#sum2 = sum2;
    this.#at = offset + end;
    if (end - start >= WINDOW) {
      window.set(bytes.subarray(end - WINDOW, end));
    } else {
      window.copyWithin(0, end - start);
      window.set(bytes.subarray(start, end), WINDOW - (end - start));
    }
  }
}

/**
 * Returns the first run of zeros from `start` on that is a hole or could become one with the next
 * bytes, else an empty run at the end. Reads one byte in 1,024 where there are no zeros.
 */
function findZeros(bytes: Uint8Array, start: number): [from: number, to: number] {
  const end = bytes.length;
  let probe = start + HOLE_BYTES - 1;
  while (probe < end) {
    if (bytes[probe] !== 0) {
      probe += HOLE_BYTES;
      continue;
    }
    let from = probe;
    while (from > start && bytes[from - 1] === 0) from -= 1;
    let to = probe + 1;
    while (to < end && bytes[to] === 0) to += 1;
    if (to - from >= HOLE_BYTES || to === end) return [from, to];
    probe = to + HOLE_BYTES;
  }
  let from = end;
  while (from > start && bytes[from - 1] === 0) from -= 1;
  return [from, end];
}

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

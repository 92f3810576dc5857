import { gunzipSync } from 'node:zlib';
import { lastAtMost } from '../../src/format/arrays.js';
import { PullError } from '../../src/format/error.js';
import { type CutPoints, cutPoints, type LayerTable } from '../../src/format/layer-table.js';
import { freeBuffer } from '../garbage.js';
import { DECODE_CALL_BYTES } from './decode.js';
import type { FrameDecoder } from './frame-decoder.js';

/**
 * Finds the ends of gzip members in bytes that arrive bit by bit, as FrameWalker does for zstd frames. A gzip member does
 * not say how long it is (RFC 1952), so it is the TOC that says where the next one begins; what it allots to a member
 * bounds what the member may decode to.
 */
export class MemberWalker {
  frameCount = 0;
  /** Nothing is known of a member before it is whole but what `boundUpTo` will say. */
  readonly openFrameBound = 0;
  readonly #table: LayerTable;
  readonly #edges: CutPoints;
  /** Blob offset and edge of the buffer's first byte. */
  #base: number;
  #first: number;
  #length = 0;

  constructor(table: LayerTable, blobStart: number, blobEnd: number) {
    this.#table = table;
    this.#edges = cutPoints(table, blobStart, blobEnd);
    this.#base = blobStart;
    this.#first = 0;
  }

  get completeBytes(): number {
    return this.frameCount === 0 ? 0 : this.frameEnd(this.frameCount - 1);
  }

  /** How long the incomplete member at the end is, what is still to come included; 0 if there is none. */
  get openFrameBytes(): number {
    const open = this.#first + this.frameCount;
    if (this.#length <= this.completeBytes || open + 1 >= this.#edges.count) return 0;
    return this.#edges.blobAt[open + 1]! - this.#edges.blobAt[open]!;
  }

  frameEnd(index: number): number {
    return this.#edges.blobAt[this.#first + index + 1]! - this.#base;
  }

  /**
   * The first member alone gets what one call may yield: ten thousand links behind a file are allotted more than that, and
   * have a tenth of it. The decoder keeps it to its bound.
   */
  boundUpTo(index: number): number {
    const allotted = this.#edges.tarAt[this.#first + index + 1]! - this.#edges.tarAt[this.#first]!;
    if (index > 0 || this.#firstContentBytes() > DECODE_CALL_BYTES) return allotted;
    return Math.min(allotted, DECODE_CALL_BYTES);
  }

  /** What is still to come of the content that the first member begins with, at the most. */
  #firstContentBytes(): number {
    const row = this.#edges.row[this.#first]!;
    if (row < 0) return 0;
    const { tarAt } = this.#edges;
    const end = this.#table.tarStart[row]! + this.#table.sizeBytes[row]!;
    return Math.min(end, tarAt[this.#first + 1]!) - tarAt[this.#first]!;
  }

  advance(_buffer: Uint8Array, lengthBytes: number): void {
    this.#length = lengthBytes;
    const { blobAt, count } = this.#edges;
    this.frameCount = Math.max(0, lastAtMost(blobAt, count, this.#base + lengthBytes) - this.#first);
  }

  cut(offset: number): void {
    this.#base += offset;
    this.#length -= offset;
    const first = lastAtMost(this.#edges.blobAt, this.#edges.count, this.#base);
    this.frameCount -= first - this.#first;
    this.#first = first;
  }
}

/** The least that node:zlib takes as the size of its output blocks. */
const MIN_BLOCK_BYTES = 64;

/** Smaller blocks share memory with other buffers. */
const MIN_FREED_BYTES = 64 * 1024;

/** What the last call returned. */
let last: Buffer<ArrayBuffer> | undefined;

/**
 * Decodes whole gzip members (RFC 1952) as a `FrameDecoder` does: the bytes are good until the next call in this thread, which frees them. Left
 * to V8, of which each call keeps a block until a full collection, a pull of noise in eStargz takes 70 MB more. zlib takes zeros behind a member
 * for padding, and passes over all behind them: the caller notices what is missing then.
 * @throws PullError `metadata-malformed` when the bytes are no valid members or decode to more
 */
export const decodeMembers: FrameDecoder = (members, mostBytes) => {
  if (last !== undefined && last.buffer.byteLength >= MIN_FREED_BYTES) freeBuffer(last);
  last = undefined;
  // zlib makes a second block as soon as the first is full: one byte more is never written.
  const chunkSize = Math.min(DECODE_CALL_BYTES, Math.max(MIN_BLOCK_BYTES, mostBytes)) + 1;
  try {
    last = gunzipSync(members, { maxOutputLength: Math.max(1, mostBytes), chunkSize });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PullError('metadata-malformed', `the compressed data cannot be decoded (${reason})`);
  }
  return last;
};

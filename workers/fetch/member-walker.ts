import { gunzipSync } from 'node:zlib';
import { lastAtMost } from '../../src/format/arrays.js';
import { PullError } from '../../src/format/error.js';
import { type CutPoints, cutPoints, type LayerTable } from '../../src/format/layer-table.js';
import { DECODE_CALL_BYTES } from '../../src/format/metadata-position.js';
import { freeBuffer } from '../garbage.js';
import type { FrameDecoder } from './frame-decoder.js';

/**
 * Finds the ends of gzip members in received bytes, as FrameWalker does for zstd frames. A gzip
 * member does not state its length (RFC 1952), so the ends come from the TOC, which also bounds the
 * decoded size of each member.
 */
export class MemberWalker {
  frameCount = 0;
  /** Unknown before the member is complete; then `boundUpTo` has it. */
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

  /** The full length of the incomplete member at the end; 0 if there is none. */
  get openFrameBytes(): number {
    const open = this.#first + this.frameCount;
    if (this.#length <= this.completeBytes || open + 1 >= this.#edges.count) return 0;
    return this.#edges.blobAt[open + 1]! - this.#edges.blobAt[open]!;
  }

  frameEnd(index: number): number {
    return this.#edges.blobAt[this.#first + index + 1]! - this.#base;
  }

  /**
   * A single member is never bounded above what one call may return: the TOC allots more to ten
   * thousand links after a file, which decode to a tenth of it. The decoder enforces the bound.
   */
  boundUpTo(index: number): number {
    const allotted = this.#edges.tarAt[this.#first + index + 1]! - this.#edges.tarAt[this.#first]!;
    if (index > 0 || this.#firstContentBytes() > DECODE_CALL_BYTES) return allotted;
    return Math.min(allotted, DECODE_CALL_BYTES);
  }

  /** The most bytes that the first member has of the content at its start. */
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

/** The smallest output block of node:zlib. */
const MIN_BLOCK_BYTES = 64;

/** Smaller blocks are not worth freeing. */
const MIN_FREED_BYTES = 64 * 1024;

/** The result of the last call. */
let last: Buffer<ArrayBuffer> | undefined;

/**
 * Decodes complete gzip members (RFC 1952), as a `FrameDecoder`: the result is valid until the next
 * call in this thread, which frees it. V8 would free it only in a full collection, and a pull of
 * noise in eStargz would take 70 MB more. zlib takes zeros after a member for padding, and ignores
 * everything after them: the caller notices that bytes are missing.
 * @throws PullError `metadata-malformed` if the bytes are no valid members or decode to more
 */
export const decodeMembers: FrameDecoder = (members, maxBytes) => {
  // Small blocks share a pool that cannot be transferred. In Node 26 it is larger than
  // `Buffer.poolSize` by 64 bytes.
  const blockBytes = last?.buffer.byteLength ?? 0;
  if (last !== undefined && blockBytes >= Math.max(MIN_FREED_BYTES, 2 * Buffer.poolSize)) freeBuffer(last);
  last = undefined;
  // zlib makes a second block as soon as the first is full: one byte more is never written.
  const chunkSize = Math.min(DECODE_CALL_BYTES, Math.max(MIN_BLOCK_BYTES, maxBytes)) + 1;
  try {
    last = gunzipSync(members, { maxOutputLength: Math.max(1, maxBytes), chunkSize });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PullError('metadata-malformed', `the compressed data cannot be decoded (${reason})`);
  }
  return last;
};

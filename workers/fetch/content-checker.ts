import { createHash, type Hash, hash } from 'node:crypto';
import { enlarged, lastAtMost } from '../../src/format/arrays.js';
import { DIGEST_BYTES, digestAt, digestOfBytes } from '../../src/format/digest.js';
import type { LayerTable } from '../../src/format/layer-table.js';
import type { ContentLocation, FetchSpanTask, WrongBytes } from '../../src/pool/messages.js';
import type { ContentRows } from '../../src/store/pack-writer.js';

/** The contents of a piece, up to the first error in it. */
export interface CheckedPiece {
  readonly contents: ContentRows;
  readonly hashedBytes: number;
  readonly wrong?: WrongBytes;
}

/** Checks the decoded pieces of one span, one after the other. */
export interface SpanChecker {
  /** Where good contents lie, if the task requests it and the table does not say it. */
  readonly locations?: readonly ContentLocation[] | undefined;
  /**
   * Checks the decoded bytes from tar offset `tarStart` on, which will be written to `packOffset`
   * in the pack.
   * @throws PullError `metadata-malformed` for bytes that are no tar
   */
  check(bytes: Buffer, tarStart: number, packOffset: number): CheckedPiece;
  /** Checks the full span after its last piece. `blobEnd` is its end if it was stopped. */
  finish(blobEnd?: number): CheckedPiece['wrong'];
}

/**
 * Lists the contents of a span of a layer with tar-split, piece by piece. The DiffID proves the
 * layer, so that digests are computed only if the task requests it; else they are those of the
 * metadata.
 */
export class ContentChecker implements SpanChecker {
  /** The first unit that has not ended yet. */
  readonly #unit: UnitCursor;
  readonly #computes: boolean;
  readonly #hash = new RunningHash();
  #hashedBytes = 0;

  constructor(task: FetchSpanTask) {
    this.#unit = new UnitCursor(task.table, task.tarStart, task.tarEnd);
    this.#computes = task.checkContents;
  }

  check(bytes: Buffer, tarStart: number, packOffset: number): CheckedPiece {
    const tarEnd = tarStart + bytes.length;
    const shift = packOffset - tarStart;
    const unit = this.#unit;
    const contents = new ContentList(!this.#computes);
    this.#hashedBytes = 0;
    while (!unit.done && unit.tarStart < tarEnd) {
      const at = unit.digestRow * DIGEST_BYTES;
      const expected = unit.digests.subarray(at, at + DIGEST_BYTES);
      if (this.#computes) {
        const actual = this.#digest(bytes, tarStart, tarEnd);
        if (actual === undefined) break;
        if (!actual.equals(expected)) {
          const hashedBytes = this.#hashedBytes;
          return { contents: contents.rows(), hashedBytes, wrong: wrongUnit(unit, actual) };
        }
      } else if (unit.tarEnd > tarEnd) break;
      contents.add(expected, unit.tarStart + shift, unit.tarEnd - unit.tarStart);
      unit.advance();
    }
    return { contents: contents.rows(), hashedBytes: this.#hashedBytes };
  }

  /** `SpanReceiver` has compared the length of each piece with the table. */
  finish(): undefined {
    return undefined;
  }

  /** Returns the digest of the unit if it ends in this piece. */
  #digest(bytes: Buffer, tarStart: number, tarEnd: number): Buffer | undefined {
    const unit = this.#unit;
    const from = Math.max(unit.tarStart - tarStart, 0);
    const part = bytes.subarray(from, Math.min(unit.tarEnd, tarEnd) - tarStart);
    this.#hashedBytes += part.length;
    return this.#hash.add(part, unit.tarEnd <= tarEnd);
  }
}

function wrongUnit(unit: UnitCursor, digest: Buffer): WrongBytes {
  const { content, tarStart, blobStart } = unit;
  const expected = digestAt(unit.digests, unit.digestRow);
  const actual = digestOfBytes(digest);
  return {
    blobStart,
    tarStart,
    content,
    expected,
    actual,
    problem: `content ${content} has the digest ${actual}, not ${expected}`,
  };
}

/** Hashes units one after the other, each of one or more parts. */
export class RunningHash {
  #hash: Hash | undefined;

  /** Adds a part of the unit. Returns the digest if it is the last one. */
  add(part: Buffer, isLast: boolean): Buffer | undefined {
    if (isLast && this.#hash === undefined) return hash('sha256', part, 'buffer');
    this.#hash ??= createHash('sha256');
    this.#hash.update(part);
    if (!isLast) return undefined;
    const digest = this.#hash.digest();
    this.#hash = undefined;
    return digest;
  }
}

/** Room for the first rows: a piece of 1 MiB has about 30 files. */
const FIRST_ROWS = 64;

/** Collects the contents that end in one piece, as flat rows: a piece can have a million. */
export class ContentList {
  #count = 0;
  #digests = new Uint8Array(FIRST_ROWS * DIGEST_BYTES);
  #packOffset = new Float64Array(FIRST_ROWS);
  #lengthBytes = new Float64Array(FIRST_ROWS);
  readonly #stated: boolean;

  /** `stated`: the digests are those of the metadata, not computed. */
  constructor(stated = false) {
    this.#stated = stated;
  }

  add(digest: Uint8Array, packOffset: number, lengthBytes: number): void {
    if (this.#count === this.#packOffset.length) this.#grow();
    this.#digests.set(digest, this.#count * DIGEST_BYTES);
    this.#packOffset[this.#count] = packOffset;
    this.#lengthBytes[this.#count] = lengthBytes;
    this.#count += 1;
  }

  /** Returns the rows; nothing may be added afterwards. */
  rows(): ContentRows {
    const count = this.#count;
    return {
      count,
      stated: this.#stated,
      digests: this.#digests.subarray(0, count * DIGEST_BYTES),
      packOffset: this.#packOffset.subarray(0, count),
      lengthBytes: this.#lengthBytes.subarray(0, count),
    };
  }

  #grow(): void {
    const rows = this.#count * 2;
    this.#digests = enlarged(this.#digests, rows * DIGEST_BYTES);
    this.#packOffset = enlarged(this.#packOffset, rows);
    this.#lengthBytes = enlarged(this.#lengthBytes, rows);
  }
}

/**
 * Iterates over the units that lie entirely in [spanStart, spanEnd) of the tar, in order. A unit is
 * a run whose digest the metadata states: a content, or a chunk of a content above the limits of a
 * span. The fields are those of the current unit. There are no objects for units: metadata can put
 * millions of them into one span.
 */
export class UnitCursor {
  /** Whether the last unit is past; then the other fields have no meaning. */
  done = false;
  content = 0;
  tarStart = 0;
  tarEnd = 0;
  blobStart = 0;
  /** The digest is row `digestRow` of `digests`. */
  digests: Uint8Array;
  digestRow = 0;
  readonly #table: LayerTable;
  readonly #spanStart: number;
  readonly #spanEnd: number;
  /** The next row, or the next chunk if the row has chunks. */
  #row: number;
  #chunk: number;

  constructor(table: LayerTable, spanStart: number, spanEnd: number) {
    this.#table = table;
    this.#spanStart = spanStart;
    this.#spanEnd = spanEnd;
    this.digests = table.digests;
    this.#row = firstRow(table, spanStart);
    this.#chunk = table.chunkFirst[this.#row]!;
    this.advance();
  }

  /** Goes to the next unit. */
  advance(): void {
    do {
      if (this.#row < this.#table.count) this.#step();
      else this.done = true;
    } while (!this.done && this.tarStart < this.#spanStart);
    // Units are in order: all after this one leave the span too.
    if (this.tarEnd > this.#spanEnd) this.done = true;
  }

  #step(): void {
    const { chunkFirst, tarStart, sizeBytes } = this.#table;
    const row = this.#row;
    const end = tarStart[row]! + sizeBytes[row]!;
    const rowEnd = chunkFirst[row + 1]!;
    this.content = row;
    if (chunkFirst[row] === rowEnd) this.#enterContent(row, end);
    else this.#enterChunk(this.#chunk++, rowEnd, end);
    if (this.#chunk === rowEnd) this.#row += 1;
  }

  #enterContent(row: number, end: number): void {
    const { tarStart, blobStart, digests } = this.#table;
    this.tarStart = tarStart[row]!;
    this.tarEnd = end;
    this.blobStart = blobStart[row]!;
    this.digests = digests;
    this.digestRow = row;
  }

  #enterChunk(chunk: number, rowEnd: number, end: number): void {
    const { chunkTarStart, chunkBlobStart, chunkDigests } = this.#table;
    this.tarStart = chunkTarStart[chunk]!;
    this.tarEnd = chunk + 1 === rowEnd ? end : chunkTarStart[chunk + 1]!;
    this.blobStart = chunkBlobStart[chunk]!;
    this.digests = chunkDigests;
    this.digestRow = chunk;
  }
}

/** The first content that ends after `tarStart`. */
function firstRow(table: LayerTable, tarStart: number): number {
  const row = lastAtMost(table.tarStart, table.count, tarStart);
  return row >= 0 && table.tarStart[row]! + table.sizeBytes[row]! > tarStart ? row : row + 1;
}

import { lastAtMost } from '../../src/format/arrays.js';
import type { LayerTable } from '../../src/format/layer-table.js';

/**
 * Goes over the units that lie wholly in [spanStart, spanEnd) of the tar, in order. A unit is a run whose digest the
 * metadata states: a content, or a chunk of a content above a span's limits. The fields are those of the unit it is at.
 * Nothing is made of a unit before it is its turn: metadata can put millions of them into one span.
 */
export class UnitCursor {
  /** There is no unit any more; the other fields mean nothing then. */
  done = false;
  content = 0;
  tarStart = 0;
  tarEnd = 0;
  blobStart = 0;
  /** Where the digest is: row `digestRow` of `digests`. */
  digests: Uint8Array;
  digestRow = 0;
  readonly #table: LayerTable;
  readonly #spanStart: number;
  readonly #spanEnd: number;
  /** What comes next: this row, or this chunk if the row has any. */
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
    // Units are in order: behind one that leaves the span, all do.
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

import { lastAtMost } from '../../src/format/arrays.js';
import type { LayerTable } from '../../src/format/layer-table.js';

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

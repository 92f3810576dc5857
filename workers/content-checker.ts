import { createHash, type Hash, hash } from 'node:crypto';
import { DIGEST_BYTES, digestAt, digestOfBytes } from '../src/format/digest.js';
import type { LayerTable } from '../src/format/layer-table.js';
import type { FetchSpanTask, WrongBytes } from '../src/pool/messages.js';
import type { ContentRows } from '../src/store/pack-writer.js';

/** A run of the tar whose digest the metadata states: a content, or a chunk of a content above a span's limits. */
interface Unit {
  readonly content: number;
  readonly tarStart: number;
  readonly tarEnd: number;
  readonly blobStart: number;
  readonly digests: Uint8Array;
  readonly digestRow: number;
}

/**
 * Checks the contents of one span while its decoded bytes come by, piece after piece. Contents of which the span has
 * only a part (the rest was resumed) are proven by the DiffID alone.
 */
export class ContentChecker {
  readonly #units: readonly Unit[];
  #next = 0;
  /** The hash of a unit that began in an earlier piece. */
  #running: Hash | undefined;

  constructor(task: FetchSpanTask) {
    this.#units = unitsOf(task.table, task.tarStart, task.tarEnd);
  }

  /**
   * Takes the decoded bytes of the tar from `tarStart` on, which go to `packOffset` in the pack.
   * @returns the units they complete, up to the first one that is wrong
   */
  check(bytes: Buffer, tarStart: number, packOffset: number): { proven: ContentRows; wrong?: WrongBytes } {
    const tarEnd = tarStart + bytes.length;
    const proven: Unit[] = [];
    while (this.#next < this.#units.length) {
      const unit = this.#units[this.#next]!;
      if (unit.tarStart >= tarEnd) break;
      const part = bytes.subarray(
        Math.max(unit.tarStart - tarStart, 0),
        Math.min(unit.tarEnd, tarEnd) - tarStart,
      );
      const digest = this.#digest(part, unit, tarStart, tarEnd);
      if (digest === undefined) break;
      const at = unit.digestRow * DIGEST_BYTES;
      if (!digest.equals(unit.digests.subarray(at, at + DIGEST_BYTES))) {
        return { proven: rowsOf(proven, packOffset - tarStart), wrong: wrongUnit(unit, digest) };
      }
      proven.push(unit);
      this.#next += 1;
    }
    return { proven: rowsOf(proven, packOffset - tarStart) };
  }

  /** The digest of a unit that ends in this piece, else undefined. */
  #digest(part: Buffer, unit: Unit, tarStart: number, tarEnd: number): Buffer | undefined {
    const ends = unit.tarEnd <= tarEnd;
    if (ends && unit.tarStart >= tarStart) return hash('sha256', part, 'buffer');
    this.#running ??= createHash('sha256');
    this.#running.update(part);
    if (!ends) return undefined;
    const digest = this.#running.digest();
    this.#running = undefined;
    return digest;
  }
}

/** The units that lie wholly in [tarStart, tarEnd), in order. */
function unitsOf(table: LayerTable, tarStart: number, tarEnd: number): Unit[] {
  const units: Unit[] = [];
  const add = (unit: Unit) => {
    if (unit.tarStart >= tarStart && unit.tarEnd <= tarEnd) units.push(unit);
  };
  for (let row = firstRow(table, tarStart); row < table.count && table.tarStart[row]! < tarEnd; row++) {
    const end = table.tarStart[row]! + table.sizeBytes[row]!;
    const lastChunk = table.chunkFirst[row + 1]! - 1;
    if (table.chunkFirst[row]! > lastChunk) {
      const { tarStart: starts, blobStart, digests } = table;
      add({
        content: row,
        tarStart: starts[row]!,
        tarEnd: end,
        blobStart: blobStart[row]!,
        digests,
        digestRow: row,
      });
    }
    for (let chunk = table.chunkFirst[row]!; chunk <= lastChunk; chunk++) {
      add({
        content: row,
        tarStart: table.chunkTarStart[chunk]!,
        tarEnd: chunk === lastChunk ? end : table.chunkTarStart[chunk + 1]!,
        blobStart: table.chunkBlobStart[chunk]!,
        digests: table.chunkDigests,
        digestRow: chunk,
      });
    }
  }
  return units;
}

/** The first content that ends after `tarStart`. */
function firstRow(table: LayerTable, tarStart: number): number {
  let low = 0;
  let high = table.count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (table.tarStart[middle]! + table.sizeBytes[middle]! > tarStart) high = middle;
    else low = middle + 1;
  }
  return low;
}

function rowsOf(units: readonly Unit[], shift: number): ContentRows {
  const rows = {
    count: units.length,
    digests: new Uint8Array(units.length * DIGEST_BYTES),
    packOffset: new Float64Array(units.length),
    lengthBytes: new Float64Array(units.length),
  };
  for (const [i, unit] of units.entries()) {
    const at = unit.digestRow * DIGEST_BYTES;
    rows.digests.set(unit.digests.subarray(at, at + DIGEST_BYTES), i * DIGEST_BYTES);
    rows.packOffset[i] = unit.tarStart + shift;
    rows.lengthBytes[i] = unit.tarEnd - unit.tarStart;
  }
  return rows;
}

function wrongUnit(unit: Unit, digest: Buffer): WrongBytes {
  const expected = digestAt(unit.digests, unit.digestRow);
  const actual = digestOfBytes(digest);
  return {
    blobStart: unit.blobStart,
    tarStart: unit.tarStart,
    content: unit.content,
    expected,
    actual,
    problem: `content ${unit.content} has the digest ${actual}, not ${expected}`,
  };
}

import { enlarged, lastAtMost, mergePairs } from '../format/arrays.js';
import type { PackId } from './paths.js';

/** An extent list as plain data, for messages between threads. */
export interface ExtentRows {
  readonly packs: readonly PackId[];
  readonly count: number;
  /** Row of `packs`. */
  readonly pack: Uint32Array;
  readonly offset: Float64Array;
  /** Offset in the tar; `count + 1` numbers, of which the last is the total length. */
  readonly start: Float64Array;
}

/** Initial capacity. */
const FIRST_ROWS = 64;

/**
 * Extents of packs in tar order: concatenated, they are a tar or a part of one. Invariants: no
 * extent is empty, and adjacent ones are merged. Typed arrays, 20 bytes a row: an image has 120,000
 * extents.
 */
export class ExtentList {
  readonly #packs: PackId[] = [];
  readonly #packRow = new Map<PackId, number>();
  #count = 0;
  #pack = new Uint32Array(FIRST_ROWS);
  #offset = new Float64Array(FIRST_ROWS);
  #start = new Float64Array(FIRST_ROWS + 1);

  /** Returns a list of one extent. */
  static of(pack: PackId, offset: number, lengthBytes: number): ExtentList {
    const list = new ExtentList();
    list.push(pack, offset, lengthBytes);
    return list;
  }

  /** Builds a list from rows. */
  static fromRows(rows: ExtentRows): ExtentList {
    const list = new ExtentList();
    for (let i = 0; i < rows.count; i++) {
      list.push(rows.packs[rows.pack[i]!]!, rows.offset[i]!, rows.start[i + 1]! - rows.start[i]!);
    }
    return list;
  }

  /** Returns the rows for a message to another thread; they share the list's memory. */
  toRows(): ExtentRows {
    return {
      packs: this.#packs,
      count: this.#count,
      pack: this.#pack.subarray(0, this.#count),
      offset: this.#offset.subarray(0, this.#count),
      start: this.#start.subarray(0, this.#count + 1),
    };
  }

  get count(): number {
    return this.#count;
  }

  /** Sum of all lengths. */
  get lengthBytes(): number {
    return this.#start[this.#count]!;
  }

  /** The packs of all extents, each once. */
  get packs(): readonly PackId[] {
    return this.#packs;
  }

  packAt(row: number): PackId {
    return this.#packs[this.#pack[row]!]!;
  }

  /** Offset in the pack. */
  offsetAt(row: number): number {
    return this.#offset[row]!;
  }

  lengthAt(row: number): number {
    return this.#start[row + 1]! - this.#start[row]!;
  }

  /** Offset in the concatenated extents. */
  startAt(row: number): number {
    return this.#start[row]!;
  }

  /**
   * Appends an extent. Merges it with the last one if it continues that, and ignores an empty one.
   */
  push(pack: PackId, offset: number, lengthBytes: number): void {
    if (lengthBytes === 0) return;
    const packRow = this.#rowOf(pack);
    const last = this.#count - 1;
    const end = this.#start[this.#count]! + lengthBytes;
    if (last >= 0 && this.#pack[last] === packRow && this.#offset[last]! + this.lengthAt(last) === offset) {
      this.#start[this.#count] = end;
      return;
    }
    if (this.#count === this.#pack.length) this.#grow();
    this.#pack[this.#count] = packRow;
    this.#offset[this.#count] = offset;
    this.#count += 1;
    this.#start[this.#count] = end;
  }

  /** Appends all extents of another list. */
  append(other: ExtentList): void {
    for (let i = 0; i < other.count; i++) this.push(other.packAt(i), other.offsetAt(i), other.lengthAt(i));
  }

  /**
   * Returns the extents of the bytes [startBytes, endBytes).
   * @throws RangeError if the list is shorter
   */
  slice(startBytes: number, endBytes: number): ExtentList {
    if (startBytes < 0 || endBytes < startBytes || endBytes > this.lengthBytes) {
      throw new RangeError(`[${startBytes}, ${endBytes}) is not within ${this.lengthBytes} bytes of extents`);
    }
    const part = new ExtentList();
    for (let i = this.rowAt(startBytes); i < this.#count && this.#start[i]! < endBytes; i++) {
      const from = Math.max(startBytes, this.#start[i]!);
      const to = Math.min(endBytes, this.#start[i + 1]!);
      part.push(this.packAt(i), this.#offset[i]! + (from - this.#start[i]!), to - from);
    }
    return part;
  }

  /** Returns the row of the extent with the byte at `position`, or `count` at the end. */
  rowAt(position: number): number {
    return lastAtMost(this.#start, this.#count + 1, position);
  }

  #rowOf(pack: PackId): number {
    let row = this.#packRow.get(pack);
    if (row === undefined) {
      row = this.#packs.push(pack) - 1;
      this.#packRow.set(pack, row);
    }
    return row;
  }

  #grow(): void {
    const rows = this.#count * 2;
    this.#pack = enlarged(this.#pack, rows);
    this.#offset = enlarged(this.#offset, rows);
    this.#start = enlarged(this.#start, rows + 1);
  }
}

/** Runs of one pack as pairs [start, end), ascending and merged: no run touches the next. */
export type Runs = Float64Array;

/** Returns how many bytes these runs have. */
export function bytesOf(runs: Runs): number {
  let bytes = 0;
  for (let i = 0; i < runs.length; i += 2) bytes += runs[i + 1]! - runs[i]!;
  return bytes;
}

/** Returns the runs that at least two of these lists have. */
export function sharedRuns(lists: readonly Runs[]): Runs {
  const starts = lists.flatMap((runs) => [...runs.filter((_, i) => i % 2 === 0)]).sort((a, b) => a - b);
  const ends = lists.flatMap((runs) => [...runs.filter((_, i) => i % 2 === 1)]).sort((a, b) => a - b);
  const shared: number[] = [];
  let depth = 0;
  for (let start = 0, end = 0; end < ends.length; ) {
    // An end comes before a start at the same offset: runs that only touch share nothing.
    if (start < starts.length && starts[start]! < ends[end]!) {
      depth += 1;
      if (depth === 2) shared.push(starts[start]!);
      start += 1;
    } else {
      depth -= 1;
      if (depth === 1) shared.push(ends[end]!);
      end += 1;
    }
  }
  return mergePairs(Float64Array.from(shared));
}

/** Returns how many bytes both have. */
export function commonBytes(a: Runs, b: Runs): number {
  let bytes = 0;
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    bytes += Math.max(0, Math.min(a[i + 1]!, b[j + 1]!) - Math.max(a[i]!, b[j]!));
    if (a[i + 1]! < b[j + 1]!) i += 2;
    else j += 2;
  }
  return bytes;
}

/** Returns the row of the run that contains [start, end), or -1. */
export function containingRun(runs: Runs, start: number, end: number): number {
  const row = lastAtMost(runs, runs.length, start) >> 1;
  return row >= 0 && end <= runs[2 * row + 1]! ? row : -1;
}

/** Returns whether a run has a byte of [start, end). */
export function overlapsRun(runs: Runs, start: number, end: number): boolean {
  // The run that contains `start`, or else the next one.
  const row = (lastAtMost(runs, runs.length, start) + 1) >> 1;
  return 2 * row < runs.length && runs[2 * row]! < end;
}

/** Returns the runs that these extents consist of, by pack. */
export function neededRuns(lists: readonly ExtentList[]): Map<PackId, Runs> {
  const pairs = new Map<PackId, number[]>();
  for (const extents of lists) {
    for (let i = 0; i < extents.count; i++) {
      const offset = extents.offsetAt(i);
      const ofPack = pairs.get(extents.packAt(i)) ?? [];
      if (ofPack.length === 0) pairs.set(extents.packAt(i), ofPack);
      ofPack.push(offset, offset + extents.lengthAt(i));
    }
  }
  return new Map([...pairs].map(([id, ofPack]) => [id, mergePairs(Float64Array.from(ofPack))]));
}

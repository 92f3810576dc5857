import { lastAtMost } from '../format/arrays.js';
import { mergePairs } from '../format/ranges.js';
import type { ExtentList } from './extents.js';
import type { PackId } from './paths.js';

/** Runs of one pack as pairs [start, end), ascending; merged: none touches the next. */
export type Runs = Float64Array;

/** Bytes in these runs. */
export function bytesOf(runs: Runs): number {
  let bytes = 0;
  for (let i = 0; i < runs.length; i += 2) bytes += runs[i + 1]! - runs[i]!;
  return bytes;
}

/** The runs that lie in at least two of these lists. */
export function sharedRuns(lists: readonly Runs[]): Runs {
  const starts = lists.flatMap((runs) => [...runs.filter((_, i) => i % 2 === 0)]).sort((a, b) => a - b);
  const ends = lists.flatMap((runs) => [...runs.filter((_, i) => i % 2 === 1)]).sort((a, b) => a - b);
  const shared: number[] = [];
  let depth = 0;
  for (let start = 0, end = 0; end < ends.length; ) {
    // Where one ends and another begins, the end comes first: what only touches is not shared.
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

/** Bytes that are in both. */
export function commonBytes(a: Runs, b: Runs): number {
  let bytes = 0;
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    bytes += Math.max(0, Math.min(a[i + 1]!, b[j + 1]!) - Math.max(a[i]!, b[j]!));
    if (a[i + 1]! < b[j + 1]!) i += 2;
    else j += 2;
  }
  return bytes;
}

/** The row of the run that holds all of [start, end), or -1. */
export function runAround(runs: Runs, start: number, end: number): number {
  const row = lastAtMost(runs, runs.length, start) >> 1;
  return row >= 0 && end <= runs[2 * row + 1]! ? row : -1;
}

/** Whether a byte of [start, end) is in a run. */
export function touchesRun(runs: Runs, start: number, end: number): boolean {
  // The first run that ends behind `start`.
  const row = (lastAtMost(runs, runs.length, start) + 1) >> 1;
  return 2 * row < runs.length && runs[2 * row]! < end;
}

/** What these extents are made of, pack by pack, each byte once. */
export function neededRuns(lists: readonly ExtentList[]): Map<PackId, Runs> {
  const pairs = new Map<PackId, number[]>();
  for (const extents of lists) {
    for (let i = 0; i < extents.count; i++) {
      const offset = extents.offsetAt(i);
      let own = pairs.get(extents.packAt(i));
      if (own === undefined) {
        own = [];
        pairs.set(extents.packAt(i), own);
      }
      own.push(offset, offset + extents.lengthAt(i));
    }
  }
  return new Map([...pairs].map(([id, own]) => [id, mergePairs(Float64Array.from(own))]));
}

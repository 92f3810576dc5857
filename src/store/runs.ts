import { lastAtMost, mergePairs } from '../format/arrays.js';
import type { ExtentList } from './extents.js';
import type { PackId } from './paths.js';

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
      let ofPack = pairs.get(extents.packAt(i));
      if (ofPack === undefined) {
        ofPack = [];
        pairs.set(extents.packAt(i), ofPack);
      }
      ofPack.push(offset, offset + extents.lengthAt(i));
    }
  }
  return new Map([...pairs].map(([id, ofPack]) => [id, mergePairs(Float64Array.from(ofPack))]));
}

import type { ExtentList } from './extents.js';
import type { PackId } from './paths.js';

/** Runs of one pack as pairs [start, end), ascending; merged: none touches the next. */
export type Runs = Float64Array;

/** These runs merged; `pairs` are in any order and may overlap. */
export function mergeRuns(pairs: Float64Array): Runs {
  const rows = Array.from({ length: pairs.length / 2 }, (_, i) => i);
  rows.sort((a, b) => pairs[2 * a]! - pairs[2 * b]!);
  const merged = new Float64Array(pairs.length);
  let length = 0;
  for (const row of rows) {
    const start = pairs[2 * row]!;
    const end = pairs[2 * row + 1]!;
    if (length > 0 && start <= merged[length - 1]!) {
      merged[length - 1] = Math.max(merged[length - 1]!, end);
    } else {
      merged[length] = start;
      merged[length + 1] = end;
      length += 2;
    }
  }
  return merged.slice(0, length);
}

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
  return mergeRuns(Float64Array.from(shared));
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
  let low = 0;
  let high = runs.length / 2;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (runs[2 * middle]! <= start) low = middle + 1;
    else high = middle;
  }
  const row = low - 1;
  return row >= 0 && end <= runs[2 * row + 1]! ? row : -1;
}

/** Whether a byte of [start, end) is in a run. */
export function touchesRun(runs: Runs, start: number, end: number): boolean {
  let low = 0;
  let high = runs.length / 2;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (runs[2 * middle + 1]! > start) high = middle;
    else low = middle + 1;
  }
  return 2 * low < runs.length && runs[2 * low]! < end;
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
  return new Map([...pairs].map(([id, own]) => [id, mergeRuns(Float64Array.from(own))]));
}

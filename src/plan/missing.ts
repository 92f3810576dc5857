/** A range [start, end) of a blob. */
export interface BlobRange {
  readonly start: number;
  readonly end: number;
}

/** Ranges in order, those that touch or overlap as one. */
export function joinRanges(ranges: readonly BlobRange[]): BlobRange[] {
  const joined: BlobRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.start - b.start)) {
    const last = joined.at(-1);
    if (last === undefined || range.start > last.end) joined.push(range);
    else joined[joined.length - 1] = { start: last.start, end: Math.max(last.end, range.end) };
  }
  return joined;
}

/** What [0, sizeBytes) has beside the ranges that are there, in order, in pieces of at most `mostBytes`. */
export function missingRanges(
  sizeBytes: number,
  there: readonly BlobRange[],
  mostBytes: number,
): BlobRange[] {
  const missing: BlobRange[] = [];
  let at = 0;
  for (const { start, end } of [...joinRanges(there), { start: sizeBytes, end: sizeBytes }]) {
    for (; at < start; at = Math.min(start, at + mostBytes)) {
      missing.push({ start: at, end: Math.min(start, at + mostBytes) });
    }
    at = Math.max(at, end);
  }
  return missing;
}

/** Sum of the lengths of ranges that do not overlap. */
export function lengthOf(ranges: readonly BlobRange[]): number {
  return ranges.reduce((sum, { start, end }) => sum + end - start, 0);
}

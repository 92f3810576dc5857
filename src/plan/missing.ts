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

/** What [0, sizeBytes) has beside the ranges that are there, in order. */
export function missingRanges(sizeBytes: number, there: readonly BlobRange[]): BlobRange[] {
  const missing: BlobRange[] = [];
  let at = 0;
  for (const { start, end } of [...joinRanges(there), { start: sizeBytes, end: sizeBytes }]) {
    if (start > at) missing.push({ start: at, end: start });
    at = Math.max(at, end);
  }
  return missing;
}

/** The same ranges in pieces of at most `mostBytes`, each made when it is asked for. */
export function* cutRanges(ranges: readonly BlobRange[], mostBytes: number): Generator<BlobRange, void> {
  for (const { start, end } of ranges) {
    for (let at = start; at < end; at += mostBytes) yield { start: at, end: Math.min(end, at + mostBytes) };
  }
}

/** How many pieces `cutRanges` makes. */
export function countPieces(ranges: readonly BlobRange[], mostBytes: number): number {
  return ranges.reduce((sum, { start, end }) => sum + Math.ceil((end - start) / mostBytes), 0);
}

/** Sum of the lengths of ranges that do not overlap. */
export function lengthOf(ranges: readonly BlobRange[]): number {
  return ranges.reduce((sum, { start, end }) => sum + end - start, 0);
}

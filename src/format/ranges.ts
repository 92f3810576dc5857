/** A range [start, end) of a blob. */
export interface BlobRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Merges pairs start, end in any order: returns them ascending, with those that touch or overlap as
 * one.
 */
export function mergePairs(pairs: Float64Array): Float64Array {
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

/** Returns the ranges ascending, with those that touch or overlap as one. */
export function joinRanges(ranges: readonly BlobRange[]): BlobRange[] {
  const merged = mergePairs(Float64Array.from(ranges.flatMap(({ start, end }) => [start, end])));
  return Array.from({ length: merged.length / 2 }, (_, i) => ({
    start: merged[2 * i]!,
    end: merged[2 * i + 1]!,
  }));
}

/** Returns the parts of [0, sizeBytes) that no range of `present` covers, ascending. */
export function missingRanges(sizeBytes: number, present: readonly BlobRange[]): BlobRange[] {
  const missing: BlobRange[] = [];
  let offset = 0;
  for (const { start, end } of [...joinRanges(present), { start: sizeBytes, end: sizeBytes }]) {
    if (start > offset) missing.push({ start: offset, end: start });
    offset = Math.max(offset, end);
  }
  return missing;
}

/** Yields the ranges in pieces of at most `maxBytes`. Lazily, since a blob may state any size. */
export function* cutRanges(ranges: readonly BlobRange[], maxBytes: number): Generator<BlobRange, void> {
  for (const { start, end } of ranges) {
    for (let at = start; at < end; at += maxBytes) yield { start: at, end: Math.min(end, at + maxBytes) };
  }
}

/** Returns how many pieces `cutRanges` yields. */
export function countPieces(ranges: readonly BlobRange[], maxBytes: number): number {
  return ranges.reduce((sum, { start, end }) => sum + Math.ceil((end - start) / maxBytes), 0);
}

/** Returns the bytes in ranges that do not overlap. */
export function lengthOf(ranges: readonly BlobRange[]): number {
  return ranges.reduce((sum, { start, end }) => sum + end - start, 0);
}

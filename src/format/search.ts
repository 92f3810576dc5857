/** The last row of `sorted[0, count)` that is at most `value`, or -1. Of equal rows the last. */
export function lastAtMost(sorted: ArrayLike<number>, count: number, value: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

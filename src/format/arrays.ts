/**
 * Returns the last index of the ascending `sorted[0, count)` whose value is at most `value`, or -1.
 */
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

/**
 * Returns how many of `items`, which are sorted, come before the first one that is not `before`.
 */
export function countBefore<T>(items: readonly T[], before: (item: T) => boolean): number {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (before(items[middle]!)) low = middle + 1;
    else high = middle;
  }
  return low;
}

type NumberArray = Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>;

/** Returns a longer copy of `array`; the items behind the old ones are 0. */
export function enlarged<T extends NumberArray>(array: T, length: number): T {
  const larger = new (array.constructor as new (length: number) => T)(length);
  larger.set(array);
  return larger;
}

/** A list of numbers that grows without an object for each. */
export class Column {
  values = new Float64Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.values.length) this.values = enlarged(this.values, this.length * 2);
    this.values[this.length++] = value;
  }

  /** Returns a view of the numbers pushed so far. */
  filled(): Float64Array {
    return this.values.subarray(0, this.length);
  }
}

/**
 * Returns a buffer with room for `neededBytes` that begins with the first `usedBytes` of `buffer`:
 * the same one if it is long enough, else a copy at least twice as long.
 */
export function withRoom(buffer: Buffer, usedBytes: number, neededBytes: number): Buffer {
  if (neededBytes <= buffer.length) return buffer;
  const larger = Buffer.allocUnsafeSlow(Math.max(neededBytes, 2 * buffer.length));
  buffer.copy(larger, 0, 0, usedBytes);
  return larger;
}

/** The first capacity of a `GrowingBuffer`: most small responses fit. */
const MIN_CAPACITY_BYTES = 1024;

/**
 * Collects chunks of bytes in one buffer that doubles. A list of the chunks would take about 200
 * bytes for each of them, and a sender chooses how many there are: 4 MiB in chunks of one byte took
 * over 500 MB.
 */
export class GrowingBuffer {
  #buffer: Buffer = Buffer.alloc(0);
  #length = 0;

  /** The bytes collected so far. */
  get length(): number {
    return this.#length;
  }

  add(chunk: Uint8Array): void {
    const needed = this.#length + chunk.length;
    if (needed > this.#buffer.length)
      this.#buffer = withRoom(this.#buffer, this.#length, Math.max(needed, MIN_CAPACITY_BYTES));
    this.#buffer.set(chunk, this.#length);
    this.#length = needed;
  }

  /** Returns a view of all bytes. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }
}

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

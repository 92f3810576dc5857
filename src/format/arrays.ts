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

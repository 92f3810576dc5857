/** What the first chunk is at least given room for: most small answers fit. */
const MIN_CAPACITY_BYTES = 1024;

/**
 * Bytes that come in chunks, copied into one buffer that doubles. A list of the chunks would cost about 200 bytes for each of
 * them, and a sender chooses how many there are: 4 MiB in chunks of one byte took over 500 MB.
 */
export class GatheredBytes {
  #buffer: Buffer = Buffer.alloc(0);
  #length = 0;

  /** How many there are. */
  get length(): number {
    return this.#length;
  }

  add(chunk: Uint8Array): void {
    const needed = this.#length + chunk.length;
    if (needed > this.#buffer.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#buffer.length, MIN_CAPACITY_BYTES));
      larger.set(this.#buffer.subarray(0, this.#length));
      this.#buffer = larger;
    }
    this.#buffer.set(chunk, this.#length);
    this.#length = needed;
  }

  /** All of them, not copied. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }
}

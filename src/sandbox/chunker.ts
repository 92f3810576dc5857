/**
 * Cuts contents into chunks as the reference writer does (containers/storage,
 * pkg/chunked/compressor): after a byte at which a rolling checksum over 64 bytes ends in 16
 * one-bits (one byte in 65,536), and before and after every run of at least 1,024 zeros, which is a
 * chunk of its own.
 */

/** bup's rolling checksum: two sums over a window, with an offset added to each byte. */
const WINDOW = 64;
const OFFSET = 31;
const SUM1 = WINDOW * OFFSET;
const SUM2 = WINDOW * (WINDOW - 1) * OFFSET;
const SPLIT_MASK = 0xffff;

/** Shorter runs of zeros are ordinary data. */
const HOLE_BYTES = 1024;
const ZEROS = new Uint8Array(HOLE_BYTES);

/** The end of a chunk, as an offset in the content. */
export interface Cut {
  readonly at: number;
  readonly zeros: boolean;
}

/** Finds the cuts of one content, which comes in pieces of any size. */
export class Chunker {
  #sum1 = SUM1;
  #sum2 = SUM2;
  /** The 64 bytes before #at. */
  readonly #window = new Uint8Array(WINDOW);
  /** All bytes before this offset are in the checksum. */
  #at = 0;
  /** Zeros after #at; more may follow. */
  #zeros = 0;
  #lastCut = 0;
  #cuts: Cut[] = [];

  /** No further cut is before this offset. */
  get settledBytes(): number {
    return this.#zeros < HOLE_BYTES ? this.#at : this.#at + this.#zeros;
  }

  /** Adds the next bytes and returns the cuts found, in order. */
  push(bytes: Uint8Array): Cut[] {
    let start = 0;
    if (this.#zeros > 0) {
      while (start < bytes.length && bytes[start] === 0) start += 1;
      this.#moreZeros(start);
      if (start < bytes.length) this.#endZeros();
    }
    while (start < bytes.length) {
      const [from, to] = findZeros(bytes, start);
      this.#roll(bytes, start, from);
      this.#moreZeros(to - from);
      if (to < bytes.length) this.#endZeros();
      start = to;
    }
    return this.#flushCuts();
  }

  /** Returns the remaining cuts; the last one is the end of the content. */
  end(): Cut[] {
    this.#endZeros();
    this.#cut(false);
    return this.#flushCuts();
  }

  #flushCuts(): Cut[] {
    const cuts = this.#cuts;
    if (cuts.length > 0) this.#cuts = [];
    return cuts;
  }

  #cut(zeros: boolean): void {
    if (this.#at > this.#lastCut) this.#cuts.push({ at: this.#at, zeros });
    this.#lastCut = this.#at;
  }

  #moreZeros(count: number): void {
    const before = this.#zeros;
    this.#zeros += count;
    if (before < HOLE_BYTES && this.#zeros >= HOLE_BYTES) this.#cut(false);
  }

  #endZeros(): void {
    const count = this.#zeros;
    this.#zeros = 0;
    if (count < HOLE_BYTES) {
      this.#roll(ZEROS, 0, count);
      return;
    }
    this.#at += count;
    this.#cut(true);
    // 64 zeros reset the sums.
    this.#window.fill(0);
    this.#sum1 = SUM1;
    this.#sum2 = SUM2;
  }

  #roll(bytes: Uint8Array, start: number, end: number): void {
    const window = this.#window;
    const offset = this.#at - start;
    let sum1 = this.#sum1;
    let sum2 = this.#sum2;
    for (let at = start; at < end; at += 1) {
      const drop = at - start < WINDOW ? window[at - start]! : bytes[at - WINDOW]!;
      sum1 = (sum1 + bytes[at]! - drop) | 0;
      sum2 = (sum2 + sum1 - WINDOW * (drop + OFFSET)) | 0;
      if ((sum2 & SPLIT_MASK) === SPLIT_MASK) {
        this.#at = offset + at + 1;
        this.#cut(false);
      }
    }
    this.#sum1 = sum1;
    this.#sum2 = sum2;
    this.#at = offset + end;
    if (end - start >= WINDOW) {
      window.set(bytes.subarray(end - WINDOW, end));
    } else {
      window.copyWithin(0, end - start);
      window.set(bytes.subarray(start, end), WINDOW - (end - start));
    }
  }
}

/**
 * Returns the first run of zeros from `start` on that is a hole or could become one with the next
 * bytes, else an empty run at the end. Reads one byte in 1,024 where there are no zeros.
 */
function findZeros(bytes: Uint8Array, start: number): [from: number, to: number] {
  const end = bytes.length;
  let probe = start + HOLE_BYTES - 1;
  while (probe < end) {
    if (bytes[probe] !== 0) {
      probe += HOLE_BYTES;
      continue;
    }
    let from = probe;
    while (from > start && bytes[from - 1] === 0) from -= 1;
    let to = probe + 1;
    while (to < end && bytes[to] === 0) to += 1;
    if (to - from >= HOLE_BYTES || to === end) return [from, to];
    probe = to + HOLE_BYTES;
  }
  let from = end;
  while (from > start && bytes[from - 1] === 0) from -= 1;
  return [from, end];
}

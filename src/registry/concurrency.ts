/** Answers that tell to wait come in waves: what comes within this time after the first is the same wave. */
const WAVE_MS = 1000;

/** Words of a row, one row for each of those that are asked. */
const MOST = 0;
const LIMIT = 1;
const GOOD = 2;
const WAVE_ENDS = 3;
const CALM_FROM = 4;
const IN_FLIGHT = 5;
const ROW_WORDS = 6;

/** How much each of several servers is asked, for all threads of a pull. */
export type Limits = BigInt64Array<SharedArrayBuffer>;

/** So many rows, each with room for `most` requests in flight. */
export function createLimits(rows: number, most: number): Limits {
  const limits = new BigInt64Array(new SharedArrayBuffer(rows * ROW_WORDS * BigInt64Array.BYTES_PER_ELEMENT));
  for (let row = 0; row < rows; row++) {
    for (const word of [MOST, LIMIT]) limits[row * ROW_WORDS + word] = BigInt(most);
  }
  return limits;
}

/** Milliseconds by a clock that all threads share and nobody sets. */
export function sharedClockMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}

/**
 * How many requests may be in flight to a server: as many as there are connections, until it asks to be asked less.
 * Then half as many, and one more each time that so many have come well (additive increase, multiplicative decrease,
 * as TCP does it). Any thread may say what came; time is passed in, in milliseconds.
 */
export class Concurrency {
  readonly #limits: Limits;
  readonly #row: number;

  constructor(limits: Limits, row = 0) {
    this.#limits = limits;
    this.#row = row * ROW_WORDS;
  }

  /** At least 1. */
  get limit(): number {
    return Number(this.#load(LIMIT));
  }

  /** Whether as many are in flight as may be. */
  get isFull(): boolean {
    return this.#load(IN_FLIGHT) >= this.#load(LIMIT);
  }

  /** Whether more are in flight than may be: they were under way when it was asked to be less. */
  get isCrowded(): boolean {
    return this.#load(IN_FLIGHT) > this.#load(LIMIT);
  }

  /** How much is left of the wait that the first answer of the last wave asked for, in milliseconds. */
  waitLeftMs(nowMs: number): number {
    return Math.max(0, Number(this.#load(CALM_FROM)) - nowMs);
  }

  /** A request is in flight until it calls `leave`. */
  enter(): void {
    this.#add(IN_FLIGHT, 1n);
  }

  leave(): void {
    this.#add(IN_FLIGHT, -1n);
  }

  /**
   * A request was told to wait. Those under way at the same time are told the same: only the first of a wave counts.
   * @returns whether it was the first
   */
  throttled(waitMs: number, nowMs: number): boolean {
    const ends = this.#load(WAVE_ENDS);
    if (nowMs < Number(ends)) return false;
    const newEnds = BigInt(Math.ceil(nowMs + Math.max(WAVE_MS, waitMs)));
    if (!this.#replace(WAVE_ENDS, ends, newEnds)) return false;
    Atomics.store(this.#limits, this.#row + CALM_FROM, BigInt(Math.ceil(nowMs + waitMs)));
    let limit = this.#load(LIMIT);
    while (!this.#replace(LIMIT, limit, limit > 1n ? limit / 2n : 1n)) limit = this.#load(LIMIT);
    Atomics.store(this.#limits, this.#row + GOOD, 0n);
    return true;
  }

  /** What a request was for came. */
  good(): void {
    const limit = this.#load(LIMIT);
    if (limit === this.#load(MOST)) return;
    if (this.#add(GOOD, 1n) + 1n < limit) return;
    Atomics.store(this.#limits, this.#row + GOOD, 0n);
    this.#replace(LIMIT, limit, limit + 1n);
  }

  #load(word: number): bigint {
    return Atomics.load(this.#limits, this.#row + word);
  }

  /** @returns what was there before */
  #add(word: number, change: bigint): bigint {
    return Atomics.add(this.#limits, this.#row + word, change);
  }

  /** @returns whether `from` was still there */
  #replace(word: number, from: bigint, to: bigint): boolean {
    return Atomics.compareExchange(this.#limits, this.#row + word, from, to) === from;
  }
}

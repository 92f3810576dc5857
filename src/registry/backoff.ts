import type { Failure } from '../format/error.js';
import { parseRetryAfter } from './headers.js';
import type { FailedHost } from './network-error.js';
import { rateLimited } from './refusal.js';

/** The longest single wait that is obeyed: above it a user is better served by an answer. */
export const MAX_WAIT_MS = 120_000;

/** All waits of a pull together. */
const MAX_TOTAL_WAIT_MS = 600_000;

/** A 429 that does not say how long is waited out for up to 1 s, the next in a row 2 s, 4 s … and never above this. */
const FIRST_JITTER_MS = 1_000;
const MAX_JITTER_MS = 32_000;

/**
 * Small answers (a manifest, a token) that are refused so are asked for this many times more, within 15 s: a pull limit, as Docker Hub
 * has it, lasts for hours, and a burst is over by then.
 */
export const MAX_UNSTATED_WAITS = 4;

/** An answer as far as it may be one that asks to wait. */
interface Told {
  readonly status: number;
  readonly retryAfter: string | undefined;
}

/**
 * How many milliseconds to wait before asking again, after the `nth` answer in a row that asks for it (counted from
 * 1): what a 429 or 503 says, and with full jitter what a 429 leaves open. Undefined for any other answer.
 * `random` is in [0, 1).
 */
export function waitAfter(
  { status, retryAfter }: Told,
  nth: number,
  nowMs: number,
  random: number,
): number | undefined {
  if (status !== 429 && status !== 503) return undefined;
  const askedMs = parseRetryAfter(retryAfter, nowMs);
  if (askedMs !== undefined || status === 503) return askedMs;
  return Math.ceil(random * Math.min(MAX_JITTER_MS, FIRST_JITTER_MS * 2 ** (nth - 1)));
}

/**
 * The waits that servers asked for, of all threads of a pull. One word, so that booking is one exchange: in its low bits
 * what all waits together took, above them until when (Unix time) they are booked; both in milliseconds.
 */
export type WaitBudget = BigInt64Array<SharedArrayBuffer>;

/** `MAX_TOTAL_WAIT_MS` has 20 bits, which leaves enough for the time until the year 2248. */
const TOTAL_BITS = 20n;
const TOTAL_MASK = (1n << TOTAL_BITS) - 1n;

/** A budget of which nothing has been booked. */
export function createWaitBudget(): WaitBudget {
  return new BigInt64Array(new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT));
}

/**
 * Books a wait from `nowMs` (Unix time) on; waits at the same time count once, whichever threads wait.
 * @throws PullError `network-hopeless` when it is longer than 120 s, or all waits together than 10 minutes
 */
export function bookWait(budget: WaitBudget, wait: Wait, nowMs: number): void {
  const { host, waitMs } = wait;
  for (;;) {
    const booked = Atomics.load(budget, 0);
    const totalMs = Number(booked & TOTAL_MASK);
    const untilMs = Number(booked >> TOTAL_BITS);
    const newUntilMs = Math.max(untilMs, nowMs + waitMs);
    const newTotalMs = totalMs + newUntilMs - Math.max(nowMs, untilMs);
    if (waitMs > MAX_WAIT_MS || newTotalMs > MAX_TOTAL_WAIT_MS) {
      const times = `${Math.ceil(waitMs / 1000)} s after ${Math.round(totalMs / 1000)} s of waiting`;
      throw rateLimited(wait, `${host} tells us to wait too long: ${times}`);
    }
    const after = (BigInt(newUntilMs) << TOTAL_BITS) | BigInt(newTotalMs);
    if (Atomics.compareExchange(budget, 0, booked, after) === booked) return;
  }
}

/** A server told us to wait, or to ask less often. */
export interface Wait {
  readonly host: string;
  readonly waitMs: number;
  /** It is no registry but a storage, to which a redirect led, or where foreign blobs lie: no credentials are sent there. */
  readonly isCrossOrigin?: boolean | undefined;
  /** Why, in the server's own words, escaped. */
  readonly words?: string | undefined;
}

/**
 * What the main thread's requests report to: karma, seen from the network's side. Whoever implements it decides when
 * the network is beyond hope.
 */
export interface RetryPolicy {
  /** Body bytes of a 2xx answer. */
  received(bytes: number): void;
  /** A network failure, of `failed`. Resolves when it is time to ask again, rejects with the PullError that ends the pull. */
  miss(reason: Failure, failed?: FailedHost): Promise<void>;
  /** This one waits and does not ask: while nobody asks, karma's clock stands still. Ends by the returned function. */
  pause(wait: Wait): () => void;
}

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

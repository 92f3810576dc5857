import type { Failure } from '../format/error.js';
import { parseRetryAfter } from './headers.js';
import type { FailedHost } from './network-error.js';
import { formatTime, formatWait, rateLimited } from './refusal.js';

/** The longest single wait that is obeyed: above it an error serves the user better. */
export const MAX_WAIT_MS = 120_000;

/** All waits of a pull together. */
const MAX_TOTAL_WAIT_MS = 600_000;

/** Waits after a 429 without Retry-After: up to 1 s, then 2 s, 4 s … */
const FIRST_JITTER_MS = 1_000;
const MAX_JITTER_MS = 32_000;

/**
 * Retries of a small request (a manifest, a token) after such a 429, within 15 s: a burst is over
 * by then, and a pull limit like that of Docker Hub lasts for hours.
 */
export const MAX_UNSTATED_WAITS = 4;

/**
 * How many milliseconds to wait before a retry, after the `nth` response in a row that asks for it
 * (counted from 1): the time that a 429 or 503 states, or full jitter after a 429 that states none.
 * Undefined for any other response. `random` is in [0, 1).
 */
export function waitAfter(
  { status, retryAfter }: { readonly status: number; readonly retryAfter: string | undefined },
  nth: number,
  nowMs: number,
  random: number,
): number | undefined {
  if (status !== 429 && status !== 503) return undefined;
  const statedMs = parseRetryAfter(retryAfter, nowMs);
  if (statedMs !== undefined || status === 503) return statedMs;
  return Math.ceil(random * Math.min(MAX_JITTER_MS, FIRST_JITTER_MS * 2 ** (nth - 1)));
}

/**
 * The waits that servers asked of all threads of a pull. One word, so that booking is one atomic
 * exchange: its low bits are the sum of all waits, the bits above are when (Unix time) the last one
 * ends; both in milliseconds.
 */
export type WaitBudget = BigInt64Array<SharedArrayBuffer>;

/** `MAX_TOTAL_WAIT_MS` has 20 bits, which leaves enough for the time until the year 2248. */
const TOTAL_BITS = 20n;
const TOTAL_MASK = (1n << TOTAL_BITS) - 1n;

/** A budget without any booked wait. */
export function createWaitBudget(): WaitBudget {
  return new BigInt64Array(new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT));
}

/**
 * Books a wait that starts at `nowMs` (Unix time); concurrent waits of all threads count once.
 * @throws PullError `network-hopeless` when it is longer than 120 s, or all waits together than 10
 *   minutes
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
      const until = formatTime(nowMs + waitMs);
      const what = totalMs < 1000 ? `, until ${until}` : ` after ${formatWait(totalMs)} of waiting`;
      const sentence = `${host} asks to wait too long: ${formatWait(waitMs)}${what}`;
      throw rateLimited(wait, sentence, `after ${until}`);
    }
    const after = (BigInt(newUntilMs) << TOTAL_BITS) | BigInt(newTotalMs);
    if (Atomics.compareExchange(budget, 0, booked, after) === booked) return;
  }
}

/** A server asked to wait, or to send fewer requests. */
export interface Wait {
  readonly host: string;
  readonly waitMs: number;
  /** It is not the registry but storage or a foreign host: it receives no credentials. */
  readonly isCrossOrigin?: boolean | undefined;
  /** The server's own reason, escaped. */
  readonly reason?: string | undefined;
}

/**
 * Decides for the main thread's requests when to retry and when to give the network up: the
 * interface of karma (`src/pull/retry-policy.ts`).
 */
export interface RetryPolicy {
  /** Counts body bytes of a 2xx response. */
  received(bytes: number): void;
  /** Counts a failure. Resolves for a retry, rejects with the PullError that ends the pull. */
  miss(reason: Failure, failed?: FailedHost): Promise<void>;
  /** Marks a request as waiting until the returned function is called. */
  pause(wait: Wait): () => void;
}

/** Responses that ask to wait within this time after the first belong to its wave. */
const WAVE_MS = 1000;

/** The words of a row; each server has a row. */
const MAX = 0;
const LIMIT = 1;
const GOOD = 2;
const WAVE_ENDS = 3;
const CALM_FROM = 4;
const IN_FLIGHT = 5;
const ROW_WORDS = 6;

/** The concurrency of requests to each server, for all threads of a pull. */
export type Limits = BigInt64Array<SharedArrayBuffer>;

/** Creates `rows` rows, each with a limit of `max` requests in flight. */
export function createLimits(rows: number, max: number): Limits {
  const limits = new BigInt64Array(new SharedArrayBuffer(rows * ROW_WORDS * BigInt64Array.BYTES_PER_ELEMENT));
  for (let row = 0; row < rows; row++) {
    for (const word of [MAX, LIMIT]) limits[row * ROW_WORDS + word] = BigInt(max);
  }
  return limits;
}

/** Milliseconds of the monotonic clock, which all threads share. */
export function sharedClockMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}

/**
 * How many requests may be in flight to a server: one a connection, until it asks to wait. Then
 * half as many, and one more each time that as many as the limit have succeeded (additive increase,
 * multiplicative decrease, as in TCP). All threads share the numbers; the caller passes in the
 * time, in milliseconds.
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

  /** Whether the limit is reached. */
  get isFull(): boolean {
    return this.#load(IN_FLIGHT) >= this.#load(LIMIT);
  }

  /** Whether more are in flight than the limit: they were sent before it was lowered. */
  get isCrowded(): boolean {
    return this.#load(IN_FLIGHT) > this.#load(LIMIT);
  }

  /**
   * The remainder of the wait that the first response of the last wave asked for, in milliseconds.
   */
  waitLeftMs(nowMs: number): number {
    return Math.max(0, Number(this.#load(CALM_FROM)) - nowMs);
  }

  /** Counts a request as in flight until `leave` is called. */
  enter(): void {
    this.#add(IN_FLIGHT, 1n);
  }

  leave(): void {
    this.#add(IN_FLIGHT, -1n);
  }

  /**
   * A request was asked to wait. Concurrent requests are asked the same: only the first of a wave
   * lowers the limit.
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

  /** A request has succeeded. */
  good(): void {
    const limit = this.#load(LIMIT);
    if (limit === this.#load(MAX)) return;
    if (this.#add(GOOD, 1n) + 1n < limit) return;
    Atomics.store(this.#limits, this.#row + GOOD, 0n);
    this.#replace(LIMIT, limit, limit + 1n);
  }

  #load(word: number): bigint {
    return Atomics.load(this.#limits, this.#row + word);
  }

  /** @returns the value before */
  #add(word: number, change: bigint): bigint {
    return Atomics.add(this.#limits, this.#row + word, change);
  }

  /** @returns whether the value was still `from` */
  #replace(word: number, from: bigint, to: bigint): boolean {
    return Atomics.compareExchange(this.#limits, this.#row + word, from, to) === from;
  }
}

import { PullError } from '../format/error.js';
import type { Wait } from './patience.js';
import type { LoggedRequest } from './request-line.js';

/** The longest single wait that is obeyed: above it a user is better served by an answer. */
const MAX_WAIT_MS = 120_000;

/** All waits of a pull together. */
const MAX_TOTAL_WAIT_MS = 600_000;

/** `Retry-After: 0` must not make a busy loop; one second is also what a miss waits. */
const MIN_WAIT_MS = 1_000;

const SECONDS = /^\d+$/;
const IMF_DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/;

/**
 * How many milliseconds a `Retry-After` header asks to wait from `nowMs` (Unix time), at least one second; undefined
 * when there is no header or it is neither seconds nor an IMF-fixdate (RFC 9110, 10.2.3).
 */
export function parseRetryAfter(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  // More digits than a time has are a long wait, too.
  if (SECONDS.test(header))
    return Math.min(Number.MAX_SAFE_INTEGER, Math.max(MIN_WAIT_MS, Number(header) * 1000));
  if (!IMF_DATE.test(header)) return undefined;
  const dateMs = Date.parse(header);
  return Number.isNaN(dateMs) ? undefined : Math.max(MIN_WAIT_MS, dateMs - nowMs);
}

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

/** What a line about such an answer says: that it is asked for again, or that the wait is too long for that. */
export function asksToWait(host: string, waitMs: number): Pick<LoggedRequest, 'again' | 'givenUp'> {
  const reason = `${host} asks to wait ${(waitMs / 1000).toFixed(1)} s`;
  return waitMs > MAX_WAIT_MS ? { givenUp: reason } : { again: reason };
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

/** The error for a server that will not be asked any more for now. */
export function rateLimited({ host, words, isElsewhere }: Omit<Wait, 'waitMs'>, sentence: string): PullError {
  const login = 'try again later, or log in with "docker login" or "podman login" if that raises the limit';
  const storage = 'wait, and try again later; it is a storage, which never sees credentials';
  return new PullError('network-hopeless', `${sentence}${words === undefined ? '' : `; it says ${words}`}`, {
    hint: `${host} limits how often it may be asked: ${isElsewhere === true ? storage : login}`,
  });
}

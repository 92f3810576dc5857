import { PullError } from '../format/error.js';
import { RETRY_WAIT_MS } from '../pool/messages.js';
import { CounterReader } from '../pool/shared-memory.js';
import type { RetryPolicy, Wait } from '../registry/backoff.js';
import type { FailedHost } from '../registry/network-error.js';
import type { Stop } from './pull-context.js';
import type { Silence } from './pull-events.js';

/**
 * Karma of fewer bytes has decayed before the second try: a body cut off earlier counts as none.
 */
const FIRST_BYTES = 64;

/**
 * Tries against a live host before the first bytes of the pull whose failures do not count for
 * karma: a restarted backend is back after a second or two. Requests that fail within half the
 * pause between two tries belong to the same try.
 */
const FREE_TRIES = 2;

/** A shorter silence is nothing to report: an answer may take as long. */
const MIN_SILENCE_MS = 1000;

/** A network failure; `sign` as in `WorkerEvent`. */
interface Miss {
  readonly message: string;
  readonly hint?: string | undefined;
  readonly host?: string | undefined;
  readonly sign?: FailedHost['sign'];
}

interface RetryOptions {
  readonly tauMs: number;
  readonly counters: Uint32Array;
  readonly stop: Stop;
  readonly now: () => number;
  /** Called for every wait that a server asks for. */
  readonly onWait: (wait: Wait) => void;
  /** Called for every failure of the main thread that is retried. */
  readonly onMiss: (message: string) => void;
}

/**
 * Decides after each network failure of a pull whether to retry or to give up: the one place for
 * both the main thread and the workers. A failed request is retried after `RETRY_WAIT_MS`, as often
 * as it takes, until karma is used up: then the pull stops with `network-hopeless`.
 * Whether an answer is a failure at all, a refusal or a request to wait is decided before, by
 * `retry-rules.ts` and `backoff.ts` in src/registry. Workers count received bytes in shared memory and
 * report failures as events, which `WorkerEvents` passes on.
 */
export class KarmaRetryPolicy implements RetryPolicy {
  misses = 0;
  readonly #options: RetryOptions;
  readonly #karma: Karma;
  readonly #received: CounterReader;
  /** When the first of the recent timeouts of each host occurred. */
  readonly #timeoutsMs = new Map<string, number>();
  #receivedBytes = 0;
  /**
   * Tries against a live host before the first bytes, and until when a failure belongs to the last
   * one.
   */
  #tries = 0;
  #tryEndsMs = Number.NEGATIVE_INFINITY;
  #requests = 0;
  /** When the last byte came, or the first request after a pause began. */
  #silentFromMs = 0;
  /** When the last failure since then occurred. */
  #missedMs: number | undefined;
  /** The time between the last two tries that failed since then. */
  #missGapMs: number | undefined;

  constructor(options: RetryOptions) {
    this.#options = options;
    this.#karma = new Karma(options.tauMs, options.now());
    this.#karma.pause(options.now());
    this.#received = new CounterReader(options.counters, 'received');
  }

  /** Counts body bytes that the main thread received. */
  received(bytes: number): void {
    const now = this.#options.now();
    this.#receivedBytes += bytes;
    this.#karma.received(bytes, now);
    this.#breakSilence(now);
  }

  /**
   * Whether nothing has come for a while although requests are in flight. The next failure is due
   * `timeoutMs` after the last byte, further ones at the pace of the last two, or each `retryMs`.
   */
  silence(timeoutMs: number, retryMs: number): Silence | undefined {
    const now = this.#options.now();
    const silentMs = now - this.#silentFromMs;
    if (this.#requests === 0 || silentMs < MIN_SILENCE_MS) return undefined;
    const everyMs = this.#missGapMs ?? RETRY_WAIT_MS + retryMs;
    const dueMs = this.#missedMs === undefined ? this.#silentFromMs + timeoutMs : this.#missedMs + everyMs;
    const hopelessMs = this.#karma.runsOutMs();
    const further = Math.max(0, Math.ceil((hopelessMs - dueMs) / everyMs));
    const givesUpMs = Math.max(now, dueMs + further * everyMs) - this.#silentFromMs;
    return { silentMs: Math.round(silentMs), givesUpMs: Math.round(givesUpMs) };
  }

  #breakSilence(now: number): void {
    this.#silentFromMs = now;
    this.#missedMs = undefined;
    this.#missGapMs = undefined;
  }

  /**
   * Counts what workers have received since the last call. Called often, as bytes decay from this
   * moment on.
   */
  drain(): void {
    const bytes = this.#received.drain();
    if (bytes > 0) this.received(bytes);
  }

  /**
   * Counts a network failure, after which the worker waits by itself. Stops the pull when karma is
   * used up. docs/karma.md says which failures count as one.
   * @returns false for a failure that counts with an earlier one
   */
  missed({ message, hint, host = '', sign }: Miss): boolean {
    this.drain();
    const now = this.#options.now();
    if (sign === 'silent' && this.#hasTimedOut(host, now)) return false;
    this.misses += 1;
    // Failures closer together belong to the same try.
    const gapMs = now - (this.#missedMs ?? now);
    if (gapMs >= RETRY_WAIT_MS / 2) this.#missGapMs = gapMs;
    this.#missedMs = now;
    if (sign === 'alive' && this.#isFree(now)) return true;
    if (this.#karma.miss(now)) {
      this.#options.stop.now(new PullError('network-hopeless', message, { hint }));
    }
    return true;
  }

  /**
   * Whether this timeout belongs to an earlier one of the host, within the pause between two tries:
   * a single event, such as a server that stops, ends all requests in flight there.
   */
  #hasTimedOut(host: string, now: number): boolean {
    for (const [other, firstMs] of this.#timeoutsMs) {
      if (now - firstMs >= RETRY_WAIT_MS) this.#timeoutsMs.delete(other);
    }
    if (this.#timeoutsMs.has(host)) return true;
    this.#timeoutsMs.set(host, now);
    return false;
  }

  /** Whether a failure of a live host belongs to the first tries, before the first bytes. */
  #isFree(now: number): boolean {
    if (this.#receivedBytes >= FIRST_BYTES) return false;
    if (now >= this.#tryEndsMs) {
      this.#tries += 1;
      this.#tryEndsMs = now + RETRY_WAIT_MS / 2;
    }
    return this.#tries <= FREE_TRIES;
  }

  /**
   * Counts a failure of the main thread. Resolves when it is time to retry, rejects when the pull
   * gives up.
   */
  async miss({ message, hint }: { message: string; hint?: string }, failed?: FailedHost): Promise<void> {
    const { stop, onMiss } = this.#options;
    const isNew = this.missed({ message, hint, ...failed });
    if (isNew && stop.reason === undefined) onMiss(message);
    await stop.guard(
      new Promise((resolve) => {
        const timer = setTimeout(resolve, RETRY_WAIT_MS);
        stop.onStop(() => clearTimeout(timer));
      }),
    );
  }

  /** Counts requests in flight: while there are none, karma's clock is paused. */
  countRequests(change: 1 | -1): void {
    this.drain();
    const before = this.#requests;
    this.#requests += change;
    if (before === 0) {
      this.#karma.resume(this.#options.now());
      this.#breakSilence(this.#options.now());
    }
    if (this.#requests === 0) this.#karma.pause(this.#options.now());
  }

  /** A server has asked a request to wait. */
  throttled({ host, waitMs, reason }: Wait): void {
    this.#options.onWait({ host, waitMs, ...(reason !== undefined && { reason }) });
  }

  /**
   * A request of the main thread waits, and does not count until the returned function is called.
   */
  pause(wait: Wait): () => void {
    this.throttled(wait);
    this.countRequests(-1);
    return () => this.countRequests(1);
  }
}

/**
 * Decides when a network is hopeless, by one number: every received byte adds 1, every failed
 * request subtracts 1, and it decays by the factor e each `tauMs`. When a failure takes it below
 * zero, the pull gives up. So steady progress, however slow, allows more retries, a stall uses them
 * up, and a failure before the first byte is final. docs/karma.md has figures.
 *
 * Called by `KarmaRetryPolicy`, which decides about each retry. The clock is passed in, in
 * milliseconds, and can be paused while no request is in flight (a server has asked to wait, for
 * example).
 */
export class Karma {
  readonly #tauMs: number;
  #karma = 0;
  #updatedMs: number;
  #running = true;

  constructor(tauMs: number, nowMs: number) {
    this.#tauMs = tauMs;
    this.#updatedMs = nowMs;
  }

  received(bytes: number, nowMs: number): void {
    this.#decay(nowMs);
    this.#karma += bytes;
  }

  /** Counts a network failure. Returns true to give up, with this failure as the reason. */
  miss(nowMs: number): boolean {
    this.#decay(nowMs);
    this.#karma -= 1;
    return this.#karma < 0;
  }

  /** When karma decays to less than a failure takes, if nothing more is received. */
  runsOutMs(): number {
    return this.#updatedMs + this.#tauMs * Math.log(Math.max(1, this.#karma));
  }

  /** Stops the clock until `resume`. */
  pause(nowMs: number): void {
    this.#decay(nowMs);
    this.#running = false;
  }

  resume(nowMs: number): void {
    this.#decay(nowMs);
    this.#running = true;
  }

  #decay(nowMs: number): void {
    if (this.#running) this.#karma *= Math.exp(-(nowMs - this.#updatedMs) / this.#tauMs);
    this.#updatedMs = nowMs;
  }
}

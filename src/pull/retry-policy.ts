import { PullError } from '../format/error.js';
import { CounterReader } from '../pool/counters.js';
import { RETRY_WAIT_MS } from '../pool/messages.js';
import type { Wait } from '../registry/backoff.js';
import type { FailedHost } from '../registry/network-error.js';
import { Karma } from './karma.js';
import type { Stop } from './stop.js';

/** Karma of fewer bytes has faded before the second try, so a body that breaks off in its first bytes is as one that never began. */
const FIRST_BYTES = 64;

/**
 * Failures of a host that is alive, before the first bytes of the pull, that karma does not hear of: a restarted backend is back
 * after a second or two. Requests that fail within half the pause between two tries belong to the same one.
 */
const FREE_TRIES = 2;

/** One network failure. */
interface Missed {
  readonly message: string;
  readonly hint?: string | undefined;
  readonly host?: string | undefined;
  readonly sign?: FailedHost['sign'];
}

/**
 * Timeouts of one host that come within the pause between two tries are one failure: one event, such as a server that stopped, ends
 * all requests that were in flight there.
 */
class Silences {
  /** When the first of the present timeouts of a host came. */
  readonly #first = new Map<string, number>();

  /** Whether a timeout belongs to those of the host that were told before; notes it if not. */
  has(host: string, now: number): boolean {
    for (const [other, first] of this.#first) {
      if (now - first >= RETRY_WAIT_MS) this.#first.delete(other);
    }
    if (this.#first.has(host)) return true;
    this.#first.set(host, now);
    return false;
  }
}

/**
 * Karma with its surroundings: one for a whole pull, on the main thread. Bytes come from the shared counters of the
 * workers and from the main thread's own requests; misses from both; the first miss that is one too many stops
 * the pull.
 */
export class Patience {
  readonly #karma: Karma;
  readonly #received: CounterReader;
  readonly #stop: Stop;
  readonly #now: () => number;
  readonly #onWait: (wait: Wait) => void;
  readonly #onMiss: (message: string) => void;
  readonly #silences = new Silences();
  #misses = 0;
  /** Of this pull. */
  #receivedBytes = 0;
  /** Times that a host failed which is alive, before the first bytes, and until when a failure belongs to the last of them. */
  #tries = 0;
  #tryEndsMs = Number.NEGATIVE_INFINITY;
  #asking = 0;

  constructor(options: {
    tauMs: number;
    counters: Uint32Array;
    stop: Stop;
    now: () => number;
    /** Hears of every wait that a server asked for. */
    onWait: (wait: Wait) => void;
    /** Hears of every failure of the main thread's own that is not the end. */
    onMiss: (message: string) => void;
  }) {
    this.#now = options.now;
    this.#karma = new Karma(options.tauMs, this.#now());
    this.#karma.pause(this.#now());
    this.#received = new CounterReader(options.counters, 'received');
    this.#stop = options.stop;
    this.#onWait = options.onWait;
    this.#onMiss = options.onMiss;
  }

  get misses(): number {
    return this.#misses;
  }

  /** Body bytes that the main thread itself received. */
  received(bytes: number): void {
    this.#receivedBytes += bytes;
    this.#karma.received(bytes, this.#now());
  }

  /** Feeds karma with what workers have received since the last call: often, as bytes count from when they are drained. */
  drain(): void {
    const bytes = this.#received.drain();
    if (bytes > 0) this.received(bytes);
  }

  /**
   * One network failure of a worker, which waits by itself. Stops the pull when karma is used up; `hint` says what to do
   * about this one in particular. Failures that `docs/karma.md` counts as one count once.
   * @returns false for one that has been counted with an earlier one
   */
  missed({ message, hint, host = '', sign }: Missed): boolean {
    this.drain();
    const now = this.#now();
    if (sign === 'silent' && this.#silences.has(host, now)) return false;
    this.#misses += 1;
    if (sign === 'alive' && this.#isHiccup(now)) return true;
    if (this.#karma.miss(now)) {
      this.#stop.now(new PullError('network-hopeless', message, { hint }));
    }
    return true;
  }

  /** Whether a failure of a host that is alive is one of the first tries, before the first bytes. */
  #isHiccup(now: number): boolean {
    if (this.#receivedBytes >= FIRST_BYTES) return false;
    if (now >= this.#tryEndsMs) {
      this.#tries += 1;
      this.#tryEndsMs = now + RETRY_WAIT_MS / 2;
    }
    return this.#tries <= FREE_TRIES;
  }

  /** One network failure of the main thread: resolves when it is time to ask again, or rejects when hope is lost. */
  async miss({ message, hint }: { message: string; hint?: string }, failed?: FailedHost): Promise<void> {
    const isNew = this.missed({ message, hint, ...failed });
    if (isNew && this.#stop.reason === undefined) this.#onMiss(message);
    await this.#stop.guard(
      new Promise((resolve) => {
        const timer = setTimeout(resolve, RETRY_WAIT_MS);
        this.#stop.onStop(() => clearTimeout(timer));
      }),
    );
  }

  /** One more, or one less, is asking a server for something: while nobody is, karma's clock stands still. */
  asking(change: 1 | -1): void {
    this.drain();
    const before = this.#asking;
    this.#asking += change;
    if (before === 0) this.#karma.resume(this.#now());
    else if (this.#asking === 0) this.#karma.pause(this.#now());
  }

  /** A server told a request to wait. */
  throttled({ host, waitMs, words }: Wait): void {
    this.#onWait({ host, waitMs, ...(words !== undefined && { words }) });
  }

  /** One of the main thread that asks was told to wait: it does not ask until the returned function is called. */
  pause(wait: Wait): () => void {
    this.throttled(wait);
    this.asking(-1);
    return () => this.asking(1);
  }
}

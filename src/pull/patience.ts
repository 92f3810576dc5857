import { PullError } from '../format/error.js';
import { CounterReader } from '../pool/counters.js';
import { RETRY_WAIT_MS } from '../pool/messages.js';
import type { Wait } from '../registry/patience.js';
import { Karma } from './karma.js';
import type { Stop } from './stop.js';

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
  #misses = 0;
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
    this.#karma.received(bytes, this.#now());
  }

  /** Feeds karma with what workers have received since the last call: often, as bytes count from when they are drained. */
  drain(): void {
    const bytes = this.#received.drain();
    if (bytes > 0) this.#karma.received(bytes, this.#now());
  }

  /**
   * One network failure of a worker, which waits by itself. Stops the pull when karma is used up; `hint` says what to do
   * about this one in particular.
   */
  missed(message: string, hint?: string): void {
    this.drain();
    this.#misses += 1;
    if (this.#karma.miss(this.#now())) {
      this.#stop.now(new PullError('network-hopeless', message, { hint }));
    }
  }

  /** One network failure of the main thread: resolves when it is time to ask again, or rejects when hope is lost. */
  async miss({ message, hint }: { message: string; hint?: string }): Promise<void> {
    this.missed(message, hint);
    if (this.#stop.reason === undefined) this.#onMiss(message);
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
  throttled({ host, waitMs }: Wait): void {
    this.#onWait({ host, waitMs });
  }

  /** One of the main thread that asks was told to wait: it does not ask until the returned function is called. */
  pause(wait: Wait): () => void {
    this.throttled(wait);
    this.asking(-1);
    return () => this.asking(1);
  }
}

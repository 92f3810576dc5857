import { askToStop, type RangeControl, receivedOf } from '../pool/range-control.js';
import { type Pace, partBytes, slowest, usualRate, type Watched } from './pace.js';

/**
 * How long a range is watched before its rate counts, in milliseconds: a lost packet or a busy thread can halt a good connection
 * for a second.
 */
const WATCH_MS = 2000;

/** Rates of the ranges that finished last: a network changes. */
const KEPT_RATES = 32;

/** What is known of a range under way. */
interface Range {
  readonly control: RangeControl;
  readonly sizeBytes: number;
  readonly splits: number;
  readonly startedMs: number;
  /** When it was looked at last, and what had come by then; undefined: not since connections are idle. */
  seen: { readonly ms: number; readonly bytes: number } | undefined;
  /** How often it was told to stop; where it cannot be cut it goes on over another connection. */
  told: number;
}

/**
 * Looks for the range that keeps the others waiting: while connections are idle and nothing waits for them, it tells the slowest one to
 * stop, if that is much slower than others were. One at a time, as what its rest does on other connections shows whether it helps.
 */
export class SlowRanges {
  readonly #isIdle: () => boolean;
  readonly #running = new Set<Range>();
  readonly #finished: Pace[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** `isIdle`: whether connections are idle and nothing waits for them. */
  constructor(isIdle: () => boolean) {
    this.#isIdle = isIdle;
  }

  /** A range is asked for. Returns what to call when it is over. */
  started(range: Pick<Range, 'control' | 'sizeBytes' | 'splits'>): () => void {
    const { control, sizeBytes, splits } = range;
    const running = { control, sizeBytes, splits, startedMs: performance.now(), seen: undefined, told: 0 };
    this.#running.add(running);
    return () => this.#ended(running);
  }

  /** Connections are idle from now on, or are not any more. */
  watch(): void {
    if (!this.#isIdle()) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
    } else if (this.#timer === undefined) {
      for (const range of this.#running) look(range);
      this.#timer = this.#wait();
    }
  }

  /** As `partBytes`. */
  partBytes(restBytes: number, connections: number): number {
    return partBytes(restBytes, connections, usualRate(this.#finished));
  }

  #ended(range: Range): void {
    this.#running.delete(range);
    if (range.told > 0) return;
    this.#finished.push({ bytes: receivedOf(range.control), ms: performance.now() - range.startedMs });
    if (this.#finished.length > KEPT_RATES) this.#finished.shift();
  }

  #wait(): NodeJS.Timeout {
    const dueMs = performance.now() + WATCH_MS;
    return setTimeout(() => {
      // Who comes this late was suspended, or as busy as the threads that receive: nothing can be told from rates.
      const isLate = performance.now() > dueMs + WATCH_MS / 2;
      this.#tellSlowest(isLate);
      this.#timer = this.#isIdle() ? this.#wait() : undefined;
    }, WATCH_MS).unref();
  }

  #tellSlowest(isLate: boolean): void {
    const watched = Array.from(this.#running, (range) => ({ range, ...look(range) }));
    if (isLate || !this.#isIdle()) return;
    const slow = slowest(watched, usualRate(this.#finished))?.range;
    if (slow === undefined) return;
    slow.told += 1;
    askToStop(slow.control);
  }
}

/** How a range came along since it was looked at last. */
function look(range: Range): Watched {
  const ms = performance.now();
  const bytes = receivedOf(range.control);
  const { sizeBytes, splits, told, seen } = range;
  range.seen = { ms, bytes };
  return {
    bytes: bytes - (seen?.bytes ?? 0),
    ms: ms - (seen?.ms ?? ms),
    leftBytes: Math.max(0, sizeBytes - bytes),
    splits: splits + told,
    hasBegun: (seen?.bytes ?? 0) > 0,
  };
}

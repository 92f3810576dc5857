import { askToStop, type RangeControl, receivedOf } from '../pool/range-control.js';

/** A rest that comes within this time at its rate is not worth a new connection, which takes up to a second by itself. */
const MIN_LEFT_MS = 2000;

/** A range is slow below this share of the rate of others: that of connections to one server differs by half as a rule. */
const SLOW_SHARE = 1 / 4;

/** What one request more should bring, by the rate of the others and in bytes: it costs a round trip. */
const MIN_PART_MS = 1000;
const MIN_PART_BYTES = 256 * 1024;

/** How often a byte is moved to another connection: where that does not help, the network itself has become slow. */
const MAX_SPLITS = 3;

/** How much came in which time. */
interface Pace {
  readonly bytes: number;
  readonly ms: number;
}

/** A range under way, and how it came along while it was watched. */
export interface Watched extends Pace {
  /** What is left of it. */
  readonly leftBytes: number;
  /** The ranges it is a part of, which were split before it. */
  readonly splits: number;
  /** Its first byte had come when it was first watched. A range that is silent is left to the timeouts. */
  readonly hasBegun: boolean;
}

/** The rate at which half of all bytes came or a faster one, in bytes a millisecond: small ranges hardly count. 0 for none. */
export function usualRate(finished: readonly Pace[]): number {
  const byRate = finished.filter(({ bytes }) => bytes > 0).toSorted((a, b) => rateOf(a) - rateOf(b));
  const half = byRate.reduce((sum, { bytes }) => sum + bytes, 0) / 2;
  let slowerBytes = 0;
  for (const pace of byRate) {
    slowerBytes += pace.bytes;
    if (slowerBytes >= half) return rateOf(pace);
  }
  return 0;
}

/** The one of these ranges that would take longest, if it is slow by the rate that is usual and its rest worth another request. */
export function slowest<T extends Watched>(ranges: readonly T[], usual: number): T | undefined {
  const slow = ranges.filter(
    (range) =>
      range.hasBegun &&
      range.bytes > 0 &&
      range.splits < MAX_SPLITS &&
      rateOf(range) < usual * SLOW_SHARE &&
      leftMs(range) > MIN_LEFT_MS,
  );
  return slow.toSorted((a, b) => leftMs(b) - leftMs(a))[0];
}

/** How many bytes each part of a rest has that is fetched over up to `connections`. */
export function partBytes(restBytes: number, connections: number, usual: number): number {
  const parts = Math.floor(restBytes / Math.max(MIN_PART_BYTES, usual * MIN_PART_MS));
  return Math.ceil(restBytes / Math.max(1, Math.min(connections, parts)));
}

function rateOf({ bytes, ms }: Pace): number {
  return bytes / Math.max(1, ms);
}

function leftMs(range: Watched): number {
  return range.leftBytes / rateOf(range);
}

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

/** Words of memory that the threads of a pull share: counters, the control of a range, the rate limit. */

/**
 * Counters in shared memory, which workers add to and the main thread reads. Each is a Uint32 that
 * wraps at 4 GiB: the reader takes differences modulo 2^32, which is exact if it reads before
 * another 4 GiB arrive.
 */
const COUNTER = {
  /** Body bytes of 2xx responses, for karma and the progress display. */
  received: 0,
  /** Tar bytes written to packs. */
  written: 1,
  /** Tar bytes hashed by the verifier. */
  verified: 2,
  /** Packs that all threads have open for reading; also decreases. */
  openPacks: 3,
  /** MiB of the large windows of zstd streams being decoded; also decreases. */
  largeWindows: 4,
} as const;

export type CounterName = Exclude<keyof typeof COUNTER, 'openPacks' | 'largeWindows'>;

/** Returns new counters, all zero. */
export function createCounters(): Uint32Array<SharedArrayBuffer> {
  return new Uint32Array(new SharedArrayBuffer(Object.keys(COUNTER).length * Uint32Array.BYTES_PER_ELEMENT));
}

/** Returns the counter of open packs. */
export function openPacksOf(counters: Uint32Array): Uint32Array {
  return counters.subarray(COUNTER.openPacks, COUNTER.openPacks + 1);
}

/** Returns the counter of large windows. */
export function largeWindowsOf(counters: Uint32Array): Uint32Array {
  return counters.subarray(COUNTER.largeWindows, COUNTER.largeWindows + 1);
}

/** Adds `amount` (below 4 GiB) to a counter; any thread. */
export function count(counters: Uint32Array, name: CounterName, amount: number): void {
  Atomics.add(counters, COUNTER[name], amount);
}

/** Reads the growth of a counter. Each reader keeps its own last value. */
export class CounterReader {
  readonly #counters: Uint32Array;
  readonly #index: number;
  #last = 0;
  #total = 0;

  constructor(counters: Uint32Array, name: CounterName) {
    this.#counters = counters;
    this.#index = COUNTER[name];
  }

  /** Returns what was added since the last call. */
  drain(): number {
    const now = Atomics.load(this.#counters, this.#index);
    const grown = (now - this.#last) >>> 0;
    this.#last = now;
    this.#total += grown;
    return grown;
  }

  /** Returns all that was added so far. */
  total(): number {
    this.drain();
    return this.#total;
  }
}

/**
 * How many bytes the layers of a pull may decode to beyond what their lengths allow: shared by all
 * threads.
 */
export type DecodedRoom = BigInt64Array<SharedArrayBuffer>;

/** Returns room for `bytes` bytes. */
export function createDecodedRoom(bytes: number): DecodedRoom {
  const room = new BigInt64Array(new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT));
  room[0] = BigInt(bytes);
  return room;
}

/** Returns the number of bytes left. */
export function roomLeft(room: DecodedRoom): number {
  return Number(Atomics.load(room, 0));
}

/** Acquires bytes, unless fewer are left. Returns whether it did. */
export function acquireRoom(room: DecodedRoom, bytes: number): boolean {
  for (;;) {
    const left = Atomics.load(room, 0);
    if (left < bytes) return false;
    if (Atomics.compareExchange(room, 0, left, left - BigInt(bytes)) === left) return true;
  }
}

/**
 * Lets the main thread observe and stop a range that a worker fetches: two words of shared memory.
 * The first counts the received bytes, modulo 2^32, which is more than a range has; the second is 1
 * after a request to stop.
 */
export type RangeControl = Uint32Array<SharedArrayBuffer>;

const RECEIVED = 0;
const STOP = 1;
const WORDS = 2;

/** Returns the control of a range that has received nothing. */
export function createRangeControl(): RangeControl {
  return new Uint32Array(new SharedArrayBuffer(WORDS * Uint32Array.BYTES_PER_ELEMENT));
}

/** Resets it for the next range. */
export function resetControl(control: RangeControl): void {
  control.fill(0);
}

/** Returns the number of bytes received so far. */
export function receivedBytes(control: RangeControl): number {
  return Atomics.load(control, RECEIVED);
}

/** Counts bytes received; the worker's side. */
export function noteReceived(control: RangeControl, bytes: number): void {
  Atomics.add(control, RECEIVED, bytes);
}

/** Requests that the worker end the range where it is. */
export function requestStop(control: RangeControl): void {
  Atomics.store(control, STOP, 1);
}

/** Returns whether the range must stop: true once for each `requestStop`. The worker's side. */
export function consumeStop(control: RangeControl): boolean {
  return Atomics.load(control, STOP) === 1 && Atomics.exchange(control, STOP, 0) === 1;
}

/**
 * Limits the bytes a second of all threads of a pull: a token bucket in shared memory. It stores
 * the time at which the bytes drawn so far are paid for, so that a draw is one addition.
 */
export interface RateLimit {
  readonly bytesPerSecond: number;
  /** In nanoseconds of `process.hrtime`, whose clock all threads share. */
  readonly paidUntil: BigInt64Array<SharedArrayBuffer>;
}

/**
 * Unused time that may be made up for: a second covers late timers, starting threads and a busy
 * machine. Nothing is granted in advance, so that the total never exceeds the limit.
 */
const BURST_NS = 1_000_000_000n;

/** Returns a limit from which nothing has been drawn. */
export function createRateLimit(bytesPerSecond: number, nowNs = process.hrtime.bigint()): RateLimit {
  const paidUntil = new BigInt64Array(new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT));
  const limit = { bytesPerSecond, paidUntil };
  resetRateLimit(limit, nowNs);
  return limit;
}

/** Forgets what was drawn, and the unused time before. */
export function resetRateLimit({ paidUntil }: RateLimit, nowNs = process.hrtime.bigint()): void {
  Atomics.store(paidUntil, 0, nowNs);
}

/**
 * Draws received bytes; any thread. Returns how many milliseconds to wait before the next read, 0
 * for none.
 */
export function draw(
  { bytesPerSecond, paidUntil }: RateLimit,
  bytes: number,
  nowNs = process.hrtime.bigint(),
): number {
  const costNs = BigInt(Math.round((bytes / bytesPerSecond) * 1e9));
  for (;;) {
    const before = Atomics.load(paidUntil, 0);
    const earliest = nowNs - BURST_NS;
    const after = (before > earliest ? before : earliest) + costNs;
    if (Atomics.compareExchange(paidUntil, 0, before, after) !== before) continue;
    return Math.max(0, Number(after - nowNs) / 1e6);
  }
}

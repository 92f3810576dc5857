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

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
  paidUntil[0] = nowNs;
  return { bytesPerSecond, paidUntil };
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

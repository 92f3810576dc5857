/**
 * Bytes a second that all threads of a pull keep to together: a token bucket in shared memory. What it holds is the
 * time at which the bytes drawn so far are paid for, so drawing is one addition, whoever does it.
 */
export interface RateLimit {
  readonly bytesPerSecond: number;
  /** In nanoseconds of `process.hrtime`, whose clock all threads share. */
  readonly paidUntil: BigInt64Array<SharedArrayBuffer>;
}

/**
 * Unused time that still counts: a second makes up for late timers, starting threads and a machine that is busy. Nothing
 * is granted in advance, so all that was ever drawn is never more than the limit allows.
 */
const BURST_NS = 1_000_000_000n;

/** A limit of which nothing has been drawn. */
export function createRateLimit(bytesPerSecond: number, nowNs = process.hrtime.bigint()): RateLimit {
  const paidUntil = new BigInt64Array(new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT));
  paidUntil[0] = nowNs;
  return { bytesPerSecond, paidUntil };
}

/** Draws bytes that have been received; any thread. Returns how many milliseconds to wait before reading on, 0 for none. */
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

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
export interface Pace {
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

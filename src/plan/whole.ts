import type { PlanLimits } from './limits.js';

/** An unbroken part of a blob as it is, which a pack has. */
export interface RawRun {
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly pack: string;
  readonly packOffset: number;
}

/** A part of a blob that is pulled as one stream: on disk already, or one request. */
export interface RawPart {
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly held?: RawRun;
}

/**
 * The first requests are short, so that the decoder behind them soon has something to do, and from there on as long as an
 * even share of what came before: the front then moves at a connection's pace, whatever that is.
 */
const FIRST_SPAN_BYTES = 512 * 1024;

/**
 * The parts that tile a blob of `blobBytes` bytes, in order. Requests are at most a span long, and small again at the end, so
 * that all connections finish together (guided self-scheduling, as for spans). `held`: in order, not overlapping.
 */
export function planWhole(blobBytes: number, held: readonly RawRun[], limits: PlanLimits): RawPart[] {
  const parts: RawPart[] = [];
  let remaining = blobBytes - held.reduce((sum, run) => sum + run.blobEnd - run.blobStart, 0);
  let at = 0;
  const fetchUpTo = (end: number) => {
    while (at < end) {
      const bytes = Math.min(end - at, spanBytes(at, remaining, limits));
      // No crumb is left behind: half a span more is one request still.
      const all = end - at < bytes * 1.5;
      const blobEnd = all ? end : at + bytes;
      parts.push({ blobStart: at, blobEnd });
      remaining -= blobEnd - at;
      at = blobEnd;
    }
  };
  for (const run of held) {
    fetchUpTo(run.blobStart);
    parts.push({ blobStart: run.blobStart, blobEnd: run.blobEnd, held: run });
    at = run.blobEnd;
  }
  fetchUpTo(blobBytes);
  return parts;
}

function spanBytes(
  at: number,
  remaining: number,
  { connections, spanBlobBytes, minSpanBytes }: PlanLimits,
): number {
  const rising = Math.max(FIRST_SPAN_BYTES, at / connections);
  const falling = Math.max(minSpanBytes, remaining / (2 * connections));
  return Math.ceil(Math.min(spanBlobBytes, rising, falling));
}

/** What a blob's parts come to: bytes and requests to be fetched, and bytes that are on disk. */
export function totalsOf(parts: readonly RawPart[]): {
  readonly fetchBytes: number;
  readonly resumedBytes: number;
  readonly requests: number;
} {
  const bytesOf = (some: readonly RawPart[]) =>
    some.reduce((sum, part) => sum + part.blobEnd - part.blobStart, 0);
  const missing = parts.filter(({ held }) => held === undefined);
  const fetchBytes = bytesOf(missing);
  return { fetchBytes, resumedBytes: bytesOf(parts) - fetchBytes, requests: missing.length };
}

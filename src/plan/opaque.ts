import type { PlanLimits } from './spans.js';

/** An unbroken part of a blob as it is, which a pack has. */
export interface CachedPart {
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly pack: string;
  readonly packOffset: number;
}

/** A part of a blob that is pulled as one stream: on disk already, or one request. */
export interface BlobPart {
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly cached?: CachedPart;
}

/**
 * The first requests are short, so that the decoder behind them soon has something to do, and from there on as long as an
 * even share of what came before: the front then moves at a connection's pace, whatever that is.
 */
const FIRST_SPAN_BYTES = 512 * 1024;

/** The blob of a layer that is one stream, and what of it is on disk: in order, not overlapping. */
export interface OpaqueBlob {
  readonly blobBytes: number;
  readonly cached: readonly CachedPart[];
}

/**
 * The parts that tile a blob, in order, each made when it is asked for: a blob may state any size. Requests are at most a span
 * and a half long, and small again at the end, so that all connections finish together (guided self-scheduling, as for spans).
 */
export function* planOpaque(
  { blobBytes, cached }: OpaqueBlob,
  limits: PlanLimits,
): Generator<BlobPart, void> {
  let remaining = blobBytes - lengthOf(cached);
  let at = 0;
  for (const run of [...cached, undefined]) {
    const gapEnd = run?.blobStart ?? blobBytes;
    while (at < gapEnd) {
      const blobEnd = requestEnd(at, gapEnd, remaining, limits);
      yield { blobStart: at, blobEnd };
      remaining -= blobEnd - at;
      at = blobEnd;
    }
    if (run === undefined) return;
    yield { blobStart: run.blobStart, blobEnd: run.blobEnd, cached: run };
    at = run.blobEnd;
  }
}

/** A blob that is fetched by one request, from a server that gives no ranges. */
export function* planOneRequest(blobBytes: number): Generator<BlobPart, void> {
  yield { blobStart: 0, blobEnd: blobBytes };
}

/** What a blob's parts come to: bytes and requests to be fetched, and bytes that are on disk. No part is made for it. */
export function totalsOf(
  { blobBytes, cached }: OpaqueBlob,
  limits: PlanLimits,
): { readonly fetchBytes: number; readonly resumedBytes: number; readonly requests: number } {
  const resumedBytes = lengthOf(cached);
  const fetchBytes = blobBytes - resumedBytes;
  let remaining = fetchBytes;
  let at = 0;
  let requests = 0;
  for (const run of [...cached, undefined]) {
    const gapEnd = run?.blobStart ?? blobBytes;
    while (at < gapEnd) {
      const full = fullSpans(at, gapEnd, remaining, limits);
      const bytes = full > 0 ? full * limits.spanBlobBytes : requestEnd(at, gapEnd, remaining, limits) - at;
      requests += Math.max(1, full);
      remaining -= bytes;
      at += bytes;
    }
    at = run?.blobEnd ?? at;
  }
  return { fetchBytes, resumedBytes, requests };
}

function lengthOf(runs: readonly CachedPart[]): number {
  return runs.reduce((sum, run) => sum + run.blobEnd - run.blobStart, 0);
}

/** Where the request ends that begins at `at`, in a gap that ends at `gapEnd`. */
function requestEnd(at: number, gapEnd: number, remaining: number, limits: PlanLimits): number {
  const { connections, spanBlobBytes, minSpanBytes } = limits;
  const rising = Math.max(FIRST_SPAN_BYTES, at / connections);
  const falling = Math.max(minSpanBytes, remaining / (2 * connections));
  const bytes = Math.min(gapEnd - at, Math.ceil(Math.min(spanBlobBytes, rising, falling)));
  // No crumb is left behind: half a span more is one request still.
  return gapEnd - at < bytes * 1.5 ? gapEnd : at + bytes;
}

/** How many requests from `at` on are surely a span long: all but some dozen at either end of a large blob. */
function fullSpans(at: number, gapEnd: number, remaining: number, limits: PlanLimits): number {
  const { connections, spanBlobBytes } = limits;
  if (at < connections * spanBlobBytes) return 0;
  const untilFalling = Math.floor(remaining / spanBlobBytes) - 2 * connections;
  const untilGapEnd = Math.floor((gapEnd - at) / spanBlobBytes) - 1;
  return Math.max(0, Math.min(untilFalling, untilGapEnd));
}

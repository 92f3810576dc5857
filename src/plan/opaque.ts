import type { BlobRange } from '../format/arrays.js';
import { type PlanLimits, targetBytes } from './spans.js';

/** A contiguous part of a blob that a pack has as it is. */
export interface CachedPart {
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly pack: string;
  readonly packOffset: number;
}

/** A part of the blob of an opaque layer: on disk already, or one request. */
export interface BlobPart {
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly cached?: CachedPart;
}

/**
 * The first requests are short so that the decoder behind them can start soon. Later ones grow to
 * an even share of what came before, so that the decoded front moves at the pace of one connection.
 */
const FIRST_SPAN_BYTES = 512 * 1024;

/** The blob of an opaque layer, and its cached parts in order, not overlapping. */
export interface OpaqueBlob {
  readonly blobBytes: number;
  readonly cached: readonly CachedPart[];
}

/**
 * Yields the parts of a blob in order, lazily, since a blob may state any size. Requests are at
 * most a span and a half long, and small again at the end, so that all connections end together
 * (guided self-scheduling, as for spans).
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

/**
 * Returns the bytes and requests to fetch and the bytes on disk, without making a part for each.
 */
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

/** Returns the end of the request that begins at `at`, in a gap that ends at `gapEnd`. */
function requestEnd(at: number, gapEnd: number, remaining: number, limits: PlanLimits): number {
  const { connections, spanBlobBytes, minSpanBytes } = limits;
  const rising = Math.max(FIRST_SPAN_BYTES, at / connections);
  const falling = Math.max(minSpanBytes, remaining / (2 * connections));
  const bytes = Math.min(gapEnd - at, Math.ceil(Math.min(spanBlobBytes, rising, falling)));
  // A remainder of less than half a request is added to this one.
  return gapEnd - at < bytes * 1.5 ? gapEnd : at + bytes;
}

/**
 * Returns how many requests from `at` on are certainly one span long: all but some dozen at either
 * end of a large blob.
 */
function fullSpans(at: number, gapEnd: number, remaining: number, limits: PlanLimits): number {
  const { connections, spanBlobBytes } = limits;
  if (at < connections * spanBlobBytes) return 0;
  const untilFalling = Math.floor(remaining / spanBlobBytes) - 2 * connections;
  const untilGapEnd = Math.floor((gapEnd - at) / spanBlobBytes) - 1;
  return Math.max(0, Math.min(untilFalling, untilGapEnd));
}

/**
 * Yields ranges of a chunked layer's blob whose table is not known, as `cutSpans` would cut it if a
 * content ended wherever a span may end. `remaining`: the bytes of this blob and those behind it.
 */
export function* cutBlob(
  blobBytes: number,
  remaining: number,
  limits: PlanLimits,
): Generator<BlobRange, void> {
  for (let start = 0; start < blobBytes; ) {
    const target = targetBytes(remaining - start, blobBytes - start, limits);
    const end = Math.min(blobBytes, start + Math.ceil(target));
    yield { start, end };
    start = end;
  }
}

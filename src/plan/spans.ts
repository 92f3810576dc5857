import { SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../format/layer-table.js';
import { type LayerParts, PART } from './layer-parts.js';

export interface PlanLimits {
  /** Requests that run at the same time; at least 1. */
  readonly connections: number;
  /** A distance between wanted bytes up to this is always fetched over. */
  readonly gapBytes: number;
  /** Larger distances together may add this share of the wanted bytes. */
  readonly extraShare: number;
  /** The same in layers without tar-split, whose gaps are wanted all over the layer. */
  readonly tocOnlyExtraShare: number;
  /** Of a layer of which this share is wanted, distances up to `requestBytes` are fetched over whatever they add. */
  readonly mostShare: number;
  readonly requestBytes: number;
  /** A run is not cut into spans smaller than this for the sake of an even finish. */
  readonly minSpanBytes: number;
  readonly spanBlobBytes: number;
  readonly spanTarBytes: number;
}

/** Tar padding and headers between two files are 150 to 350 bytes compressed: 1 KiB costs less than a request's headers. */
const GAP_BYTES = 1024;

/** A flat rule of 64 KiB makes an update of scattered small files fetch 1.4 to 4 times what it wants. */
const EXTRA_SHARE = 0.03;

/**
 * Without tar-split an update has to fetch every gap. Of 20,000 files of which a tenth changed, a share of 0.03 asks 10,675
 * times and 0.10 8,608 times, for 1.02 and 1.09 times the bytes that cannot be done without.
 */
const TOC_ONLY_EXTRA_SHARE = 0.1;

/**
 * A request costs as much CPU time as fetching, decoding, hashing and writing 48 KiB of a blob (0.55 ms: 10,700 requests for
 * 73 MB took 7.6 s where 588 MB in 137 requests took 6.2 s).
 */
export const REQUEST_BYTES = 48 * 1024;

/**
 * Where two thirds are wanted, fetching over what is held adds at most half of that again, and saves up to thousands of
 * requests. Where less is wanted, the bytes may be worth more than the requests: nobody knows the network beforehand.
 */
const MOST_SHARE = 2 / 3;

/** One decode call's worth: below it a request's round trip costs more than an uneven finish. */
const MIN_SPAN_BYTES = 2 ** 20;

/** The limits a pull over so many connections (at least 1) plans with. */
export function planLimits(connections: number): PlanLimits {
  return {
    connections,
    gapBytes: GAP_BYTES,
    extraShare: EXTRA_SHARE,
    tocOnlyExtraShare: TOC_ONLY_EXTRA_SHARE,
    mostShare: MOST_SHARE,
    requestBytes: REQUEST_BYTES,
    minSpanBytes: MIN_SPAN_BYTES,
    spanBlobBytes: SPAN_BLOB_BYTES,
    spanTarBytes: SPAN_TAR_BYTES,
  };
}

/** The distances above `gapBytes`: parts [first, end) of a layer and their blob bytes. */
interface Distances {
  readonly layer: number[];
  readonly first: number[];
  readonly end: number[];
  readonly blobBytes: number[];
}

/**
 * Which parts are fetched, one array a layer: 1 for the wanted ones and for those of the distances between them
 * that cost less as bytes than as a request. Neighbouring fetched parts make a run.
 *
 * A distance is what lies between two wanted parts, or between a wanted part and the layer's end or a part that no
 * span may run over. Distances up to `gapBytes` are always fetched over, and up to `requestBytes` where most of the layer is
 * wanted. The larger ones follow smallest first over the whole pull, while their sum stays within the share of the wanted
 * bytes that layers with or without tar-split (`tocOnly`) have for it; of equal ones the earlier.
 */
export function selectParts(
  layers: readonly LayerParts[],
  tocOnly: readonly boolean[],
  limits: PlanLimits,
): Uint8Array[] {
  const taken = layers.map((parts) => new Uint8Array(parts.count));
  for (const kind of [false, true]) {
    const large: Distances = { layer: [], first: [], end: [], blobBytes: [] };
    let wantedBytes = 0;
    for (const [layer, parts] of layers.entries()) {
      if (tocOnly[layer] !== kind) continue;
      const freeBytes = isMostlyMissing(parts, limits) ? limits.requestBytes : limits.gapBytes;
      wantedBytes += takeWanted(parts, layer, freeBytes, taken[layer]!, large);
    }
    takeSmallest(large, wantedBytes * (kind ? limits.tocOnlyExtraShare : limits.extraShare), taken);
  }
  return taken;
}

function isMostlyMissing({ count, state, blobStart }: LayerParts, { mostShare }: PlanLimits): boolean {
  let wantedBytes = 0;
  let allBytes = 0;
  for (let row = 0; row < count; row++) {
    const bytes = blobStart[row + 1]! - blobStart[row]!;
    if (state[row] === PART.missing) wantedBytes += bytes;
    if (state[row] !== PART.resumed) allBytes += bytes;
  }
  return wantedBytes > 0 && wantedBytes >= mostShare * allBytes;
}

/** Takes as many of the distances as fit the budget. */
function takeSmallest(large: Distances, budgetBytes: number, taken: readonly Uint8Array[]): void {
  const { maxBytes, ofMaxBytes } = largestTaken(large.blobBytes, budgetBytes);
  let left = ofMaxBytes;
  for (let row = 0; row < large.layer.length; row++) {
    const bytes = large.blobBytes[row]!;
    if (bytes > maxBytes || (bytes === maxBytes && left-- <= 0)) continue;
    take(taken[large.layer[row]!]!, large.first[row]!, large.end[row]!);
  }
}

/** Takes the wanted parts of a layer and the small distances, notes the large ones; returns the wanted blob bytes. */
function takeWanted(
  parts: LayerParts,
  layer: number,
  freeBytes: number,
  taken: Uint8Array,
  large: Distances,
): number {
  const { count, blobStart, state } = parts;
  let wantedBytes = 0;
  let from = 0;
  let nearWanted = false;
  for (let row = 0; row <= count; row++) {
    const isWanted = row < count && state[row] === PART.missing;
    const isBarrier = row === count || state[row] === PART.resumed || state[row] === PART.hole;
    if (!isWanted && !isBarrier) continue;
    const bytes = blobStart[row]! - blobStart[from]!;
    if (isWanted || nearWanted) {
      if (bytes <= freeBytes) take(taken, from, row);
      else note(large, layer, from, row, bytes);
    }
    if (isWanted) {
      taken[row] = 1;
      wantedBytes += blobStart[row + 1]! - blobStart[row]!;
    }
    from = row + 1;
    nearWanted = isWanted;
  }
  return wantedBytes;
}

/** A loop, since most distances are one part and fill() costs a call each. */
function take(taken: Uint8Array, first: number, end: number): void {
  for (let row = first; row < end; row++) taken[row] = 1;
}

function note(large: Distances, layer: number, first: number, end: number, blobBytes: number): void {
  large.layer.push(layer);
  large.first.push(first);
  large.end.push(end);
  large.blobBytes.push(blobBytes);
}

/** The largest size that fits the budget when the smallest go first, and how many of exactly that size do. */
function largestTaken(sizes: readonly number[], budgetBytes: number) {
  const sorted = new Float64Array(sizes).sort();
  let sum = 0;
  let maxBytes = 0;
  let ofMaxBytes = 0;
  for (let row = 0; row < sorted.length; row++) {
    const bytes = sorted[row]!;
    sum += bytes;
    if (sum > budgetBytes) break;
    ofMaxBytes = bytes === maxBytes ? ofMaxBytes + 1 : 1;
    maxBytes = bytes;
  }
  return { maxBytes, ofMaxBytes };
}

/** The parts [first, end) of a layer that one request fetches. */
export interface PartRange {
  readonly layer: number;
  readonly first: number;
  readonly end: number;
}

/**
 * The runs cut into spans, in order of layers and tar, by guided self-scheduling (Polychronopoulos and Kuck, IEEE
 * Trans. Computers C-36(12), 1987): each takes the bytes that remain / (2 x connections), so that the last ones are
 * small and all connections finish together. Cuts fall at the end of a content or chunk; the gap goes with what follows.
 */
export function cutSpans(
  layers: readonly LayerParts[],
  taken: readonly Uint8Array[],
  limits: PlanLimits,
): PartRange[] {
  const spans: PartRange[] = [];
  const runs = layers.flatMap((parts, layer) => runsOf(parts, taken[layer]!, layer));
  let remaining = runs.reduce((sum, run) => sum + blobBytes(layers[run.layer]!, run.first, run.end), 0);
  for (const run of runs) {
    const parts = layers[run.layer]!;
    let first = run.first;
    while (first < run.end) {
      const target = targetBytes(remaining, blobBytes(parts, first, run.end), limits);
      const end = spanEnd(parts, first, run.end, target, limits);
      // Frames that decode to nothing can stand alone at a run's end: nobody needs them.
      if (parts.tarStart[end]! > parts.tarStart[first]!) spans.push({ layer: run.layer, first, end });
      remaining -= blobBytes(parts, first, end);
      first = end;
    }
  }
  return spans;
}

function runsOf(parts: LayerParts, taken: Uint8Array, layer: number): PartRange[] {
  const runs: PartRange[] = [];
  let end = 0;
  for (let first = taken.indexOf(1); first >= 0; first = taken.indexOf(1, end)) {
    end = taken.indexOf(0, first);
    if (end < 0) end = parts.count;
    runs.push({ layer, first, end });
  }
  return runs;
}

/** Blob bytes of the next span: the guided share, evened out over the run so that no crumb is left at its end. */
function targetBytes(remaining: number, runBytes: number, limits: PlanLimits): number {
  const { minSpanBytes, spanBlobBytes } = limits;
  const share = Math.min(spanBlobBytes, Math.max(minSpanBytes, remaining / (2 * limits.connections)));
  const parts = Math.max(1, Math.min(Math.ceil(runBytes / share), Math.floor(runBytes / minSpanBytes)));
  return runBytes / parts;
}

function spanEnd(
  parts: LayerParts,
  first: number,
  runEnd: number,
  target: number,
  limits: PlanLimits,
): number {
  let end = first;
  while (end < runEnd) {
    const next = unitEnd(parts, end, runEnd, limits);
    if (end > first) {
      const onlyGaps = parts.state[next - 1] === PART.gap;
      if (!fits(parts, first, next, limits)) {
        // A content above the limits is streamed: a gap behind it comes along instead of as a request.
        if (onlyGaps && !fits(parts, first, end, limits)) end = next;
        break;
      }
      const bytes = blobBytes(parts, first, end);
      const middle = (bytes + blobBytes(parts, first, next)) / 2;
      if (!onlyGaps && bytes >= limits.minSpanBytes && middle > target) break;
    }
    end = next;
  }
  return end;
}

/**
 * The end of what should stay together: gaps and the content or chunk behind them. The gaps alone, at the end of a
 * run or when they would push that content over the limits; a content that is above them anyway takes its gap along.
 */
function unitEnd(parts: LayerParts, first: number, runEnd: number, limits: PlanLimits): number {
  let content = first;
  while (content < runEnd && parts.state[content] === PART.gap) content++;
  if (content === runEnd) return runEnd;
  const together = fits(parts, first, content + 1, limits) || !fits(parts, content, content + 1, limits);
  return together ? content + 1 : content;
}

function blobBytes(parts: LayerParts, first: number, end: number): number {
  return parts.blobStart[end]! - parts.blobStart[first]!;
}

function fits(parts: LayerParts, first: number, end: number, limits: PlanLimits): boolean {
  const tarBytes = parts.tarStart[end]! - parts.tarStart[first]!;
  return blobBytes(parts, first, end) <= limits.spanBlobBytes && tarBytes <= limits.spanTarBytes;
}

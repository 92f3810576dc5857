import { SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../format/layer-table.js';
import { type LayerParts, PART } from './layer-parts.js';

export interface PlanLimits {
  /** Requests that run at the same time; at least 1. */
  readonly connections: number;
  /** Distances between missing bytes up to this are always fetched too. */
  readonly gapBytes: number;
  /** Larger distances may add up to this share of the missing bytes. */
  readonly extraShare: number;
  /** The same for layers without tar-split, where gaps are missing all over the layer. */
  readonly tocOnlyExtraShare: number;
  /**
   * In a layer with at least this share missing, distances up to `requestBytes` are fetched
   * whatever they add.
   */
  readonly mostlyMissingShare: number;
  readonly requestBytes: number;
  /**
   * Runs are not cut into smaller spans than this, not even for all connections to end together.
   */
  readonly minSpanBytes: number;
  readonly spanBlobBytes: number;
  readonly spanTarBytes: number;
}

/**
 * Padding and headers between two files are 150 to 350 bytes compressed. 1 KiB costs less than the
 * headers of a request.
 */
const GAP_BYTES = 1024;

/**
 * A fixed limit of 64 KiB makes an update of scattered small files fetch 1.4 to 4 times the missing
 * bytes.
 */
const EXTRA_SHARE = 0.03;

/**
 * Without tar-split an update has to fetch every gap. For 20,000 files of which a tenth changed, a
 * share of 0.03 takes 10,675 requests and 0.10 takes 8,608, for 1.02 and 1.09 times the missing
 * bytes.
 */
const TOC_ONLY_EXTRA_SHARE = 0.1;

/**
 * A request costs as much CPU time as fetching, decoding, hashing and writing 48 KiB of a blob:
 * 0.55 ms (10,700 requests for 73 MB took 7.6 s, 137 requests for 588 MB took 6.2 s).
 */
export const REQUEST_BYTES = 48 * 1024;

/**
 * Where two thirds are missing, fetching the cached bytes between them adds at most half as much
 * again and saves up to thousands of requests. Where less is missing, bytes may cost more than
 * requests: the network is not known beforehand.
 */
const MOSTLY_MISSING_SHARE = 2 / 3;

/**
 * The input of one decode call. Below it the round trip of a request costs more than connections
 * that end at different times.
 */
const MIN_SPAN_BYTES = 2 ** 20;

/** Returns the limits for a pull over `connections` (at least 1) connections. */
export function planLimits(connections: number): PlanLimits {
  return {
    connections,
    gapBytes: GAP_BYTES,
    extraShare: EXTRA_SHARE,
    tocOnlyExtraShare: TOC_ONLY_EXTRA_SHARE,
    mostlyMissingShare: MOSTLY_MISSING_SHARE,
    requestBytes: REQUEST_BYTES,
    minSpanBytes: MIN_SPAN_BYTES,
    spanBlobBytes: SPAN_BLOB_BYTES,
    spanTarBytes: SPAN_TAR_BYTES,
  };
}

/** Distances that are not always fetched: parts [first, end) of a layer and their blob bytes. */
interface Distances {
  readonly layer: number[];
  readonly first: number[];
  readonly end: number[];
  readonly blobBytes: number[];
}

/**
 * Selects the parts to fetch: returns one array for each layer, 1 for missing parts and for the
 * distances between them that cost less as bytes than as a request. Adjacent selected parts form a
 * run.
 *
 * A distance lies between two missing parts, or between a missing part and the end of the layer or
 * a part that no span may include. Distances up to `gapBytes` are always fetched, and up to
 * `requestBytes` where most of the layer is missing. Larger ones are added smallest first over the
 * whole pull, the earlier of equal ones first, as long as their sum stays within a share of the
 * missing bytes. Layers with and without tar-split (`tocOnly`) have shares of their own.
 */
export function selectParts(
  layers: readonly LayerParts[],
  tocOnly: readonly boolean[],
  limits: PlanLimits,
): Uint8Array[] {
  const selected = layers.map((parts) => new Uint8Array(parts.count));
  for (const kind of [false, true]) {
    const large: Distances = { layer: [], first: [], end: [], blobBytes: [] };
    let missingBytes = 0;
    for (const [layer, parts] of layers.entries()) {
      if (tocOnly[layer] !== kind) continue;
      const freeBytes = isMostlyMissing(parts, limits) ? limits.requestBytes : limits.gapBytes;
      missingBytes += selectMissing(parts, layer, freeBytes, selected[layer]!, large);
    }
    selectSmallest(large, missingBytes * (kind ? limits.tocOnlyExtraShare : limits.extraShare), selected);
  }
  return selected;
}

function isMostlyMissing(
  { count, state, blobStart }: LayerParts,
  { mostlyMissingShare }: PlanLimits,
): boolean {
  let missingBytes = 0;
  let allBytes = 0;
  for (let row = 0; row < count; row++) {
    const bytes = blobStart[row + 1]! - blobStart[row]!;
    if (state[row] === PART.missing) missingBytes += bytes;
    if (state[row] !== PART.resumed) allBytes += bytes;
  }
  return missingBytes > 0 && missingBytes >= mostlyMissingShare * allBytes;
}

function selectSmallest(large: Distances, budgetBytes: number, selected: readonly Uint8Array[]): void {
  const { maxBytes, ofMaxBytes } = largestFitting(large.blobBytes, budgetBytes);
  let left = ofMaxBytes;
  for (let row = 0; row < large.layer.length; row++) {
    const bytes = large.blobBytes[row]!;
    if (bytes > maxBytes || (bytes === maxBytes && left-- <= 0)) continue;
    select(selected[large.layer[row]!]!, large.first[row]!, large.end[row]!);
  }
}

/**
 * Selects the missing parts of a layer and its small distances, and adds the others to `large`.
 * Returns the missing blob bytes.
 */
function selectMissing(
  parts: LayerParts,
  layer: number,
  freeBytes: number,
  selected: Uint8Array,
  large: Distances,
): number {
  const { count, blobStart, state } = parts;
  let missingBytes = 0;
  let from = 0;
  let afterMissing = false;
  for (let row = 0; row <= count; row++) {
    const isMissing = row < count && state[row] === PART.missing;
    const isBarrier = row === count || state[row] === PART.resumed || state[row] === PART.hole;
    if (!isMissing && !isBarrier) continue;
    const bytes = blobStart[row]! - blobStart[from]!;
    if (isMissing || afterMissing) {
      if (bytes <= freeBytes) select(selected, from, row);
      else addDistance(large, layer, from, row, bytes);
    }
    if (isMissing) {
      selected[row] = 1;
      missingBytes += blobStart[row + 1]! - blobStart[row]!;
    }
    from = row + 1;
    afterMissing = isMissing;
  }
  return missingBytes;
}

/** A loop, because most distances are one part and `fill` costs a call for each. */
function select(selected: Uint8Array, first: number, end: number): void {
  for (let row = first; row < end; row++) selected[row] = 1;
}

function addDistance(large: Distances, layer: number, first: number, end: number, blobBytes: number): void {
  large.layer.push(layer);
  large.first.push(first);
  large.end.push(end);
  large.blobBytes.push(blobBytes);
}

/**
 * Returns the largest size that fits the budget when the smallest come first, and how many of
 * exactly that size fit.
 */
function largestFitting(sizes: readonly number[], budgetBytes: number) {
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
 * Cuts the runs into spans, in the order of layers and tar, by guided self-scheduling
 * (Polychronopoulos and Kuck, IEEE Trans. Computers C-36(12), 1987): each span takes the remaining
 * bytes / (2 x connections), so that the last ones are small and all connections end together.
 * Spans end where a content or chunk ends; a gap goes with what follows it.
 */
export function cutSpans(
  layers: readonly LayerParts[],
  selected: readonly Uint8Array[],
  limits: PlanLimits,
): PartRange[] {
  const spans: PartRange[] = [];
  const runs = layers.flatMap((parts, layer) => runsOf(parts, selected[layer]!, layer));
  let remaining = runs.reduce((sum, run) => sum + blobBytes(layers[run.layer]!, run.first, run.end), 0);
  for (const run of runs) {
    const parts = layers[run.layer]!;
    let first = run.first;
    while (first < run.end) {
      const target = targetBytes(remaining, blobBytes(parts, first, run.end), limits);
      const end = spanEnd(parts, first, run.end, target, limits);
      // Frames that decode to nothing at the end of a run are not fetched.
      if (parts.tarStart[end]! > parts.tarStart[first]!) spans.push({ layer: run.layer, first, end });
      remaining -= blobBytes(parts, first, end);
      first = end;
    }
  }
  return spans;
}

function runsOf(parts: LayerParts, selected: Uint8Array, layer: number): PartRange[] {
  const runs: PartRange[] = [];
  let end = 0;
  for (let first = selected.indexOf(1); first >= 0; first = selected.indexOf(1, end)) {
    end = selected.indexOf(0, first);
    if (end < 0) end = parts.count;
    runs.push({ layer, first, end });
  }
  return runs;
}

/**
 * Returns the blob bytes of the next span: the guided share, evened out over the run so that no
 * tiny span is left at its end.
 */
export function targetBytes(remaining: number, runBytes: number, limits: PlanLimits): number {
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
        // A content above the limits is streamed: a gap behind it comes along instead of in a
        // request of its own.
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
 * Returns the end of what stays together: gaps and the content or chunk behind them. Returns the
 * end of the gaps alone at the end of a run, or where they would push the content over the limits;
 * a content above the limits anyway takes its gap along.
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

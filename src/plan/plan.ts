import { lastAtMost } from '../format/arrays.js';
import { DigestTable } from '../format/digest.js';
import type { LayerTable } from '../format/layer-table.js';
import {
  allocateParts,
  buildParts,
  type FirstOccurrences,
  type LayerParts,
  type LayerToPlan,
  layResumed,
  PART,
} from './layer-parts.js';
import { cutSpans, type PartRange, type PlanLimits, selectParts } from './spans.js';
import { buildTocOnlyParts } from './toc-only-parts.js';

/** Where the bytes of a segment come from. */
export const SEGMENT = {
  /** Decoded from one span, all of which it is; `source` is its row in the spans of the plan. */
  span: 0,
  /** In a pack already; `source` is the pack, `sourceOffset` the offset in it. */
  cached: 1,
  /**
   * Equal to bytes that come earlier in this pull and are no copy themselves; `source` is the
   * layer, `sourceOffset` the offset in its tar.
   */
  copy: 2,
  /** In tar-split; `source` is -1. */
  inline: 3,
} as const;

/**
 * The segments of one layer's tar in order, without gaps, 29 bytes each. Segment i is [tarStart[i],
 * tarStart[i + 1]).
 */
export interface Segments {
  readonly count: number;
  readonly kind: Uint8Array;
  /** One more item than `count`: the last is the length of the tar. */
  readonly tarStart: Float64Array;
  readonly source: Int32Array;
  readonly sourceOffset: Float64Array;
  /**
   * Bytes of the tar in the segment: the length of its range, or less where tar offsets are
   * allotments. For a span it is not known before it is fetched.
   */
  readonly lengthBytes: Float64Array;
}

/**
 * One range request. Blob bytes [blobStart, blobEnd) decode to exactly the tar bytes [tarStart,
 * tarEnd), or to at most as many where the table's tar offsets are allotments.
 */
export interface Span {
  readonly layer: number;
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
}

/**
 * In bytes, except `requests`. `fetchBytes` counts bytes of blobs; the others count bytes of tars
 * and add up to the length of the tars. `decodedBytes` of a layer without tar-split is an estimate.
 */
interface PlanTotals {
  readonly fetchBytes: number;
  /** What the fetched bytes decode to. */
  readonly decodedBytes: number;
  /** Found in the store by digest. */
  readonly reusedBytes: number;
  /** Equal to bytes that come earlier in this pull. */
  readonly copiedBytes: number;
  /** Left by an interrupted pull. */
  readonly resumedBytes: number;
  /** Written from tar-split. */
  readonly inlineBytes: number;
  /** The number of spans. */
  readonly requests: number;
}

interface LayerPlan {
  readonly segments: Segments;
  /** Spans [firstSpan, endSpan) of the plan belong to this layer. */
  readonly firstSpan: number;
  readonly endSpan: number;
  readonly totals: PlanTotals;
}

export interface PullPlan {
  /** In the order of the layers and their tars, which is the order to fetch them in. */
  readonly spans: readonly Span[];
  readonly layers: readonly LayerPlan[];
  readonly totals: PlanTotals;
}

/**
 * Plans where every byte of every tar comes from, with exact totals, before the first content byte
 * is fetched. Layers are in the order of the image; tables keep the invariants of `LayerTable`.
 * Never throws.
 */
export function planPull(layers: readonly LayerToPlan[], limits: PlanLimits): PullPlan {
  const firsts = findFirstOccurrences(layers.map((input) => input.table));
  const parts = layers.map((input, layer) =>
    input.table.layout === 'tar-split'
      ? layResumed(buildParts(layers, layer, firsts[layer]!), input.resumed)
      : buildTocOnlyParts(layers, layer, firsts[layer]!),
  );
  const tocOnly = layers.map(({ table }) => table.layout !== 'tar-split');
  const ranges = cutSpans(parts, selectParts(parts, tocOnly, limits), limits);
  const plans: LayerPlan[] = [];
  let firstSpan = 0;
  for (const [layer, layerParts] of parts.entries()) {
    let endSpan = firstSpan;
    while (ranges[endSpan]?.layer === layer) endSpan++;
    const own = ranges.slice(firstSpan, endSpan);
    const segments = buildSegments(layerParts, own, firstSpan);
    plans.push({ segments, firstSpan, endSpan, totals: countTotals(layerParts, own) });
    firstSpan = endSpan;
  }
  return {
    spans: ranges.map((range) => toSpan(parts[range.layer]!, range)),
    layers: plans,
    totals: sumOf(plans),
  };
}

/**
 * Returns the first occurrence of every content, one result for each layer. Contents are the same
 * when digest and size are. Digests forged to collide cannot make planning quadratic: `DigestTable`
 * gives up, and the content counts as new.
 */
export function findFirstOccurrences(tables: readonly LayerTable[]): FirstOccurrences[] {
  const { firstRow } = DigestTable.of(tables);
  const starts: number[] = [];
  let rows = 0;
  for (const { count } of tables) {
    starts.push(rows);
    rows += count;
  }
  return tables.map(({ count }, layer) => {
    const first = { layer: new Int32Array(count).fill(-1), row: new Int32Array(count) };
    for (let row = 0; row < count; row++) {
      const at = firstRow[starts[layer]! + row]!;
      if (at < 0 || at === starts[layer]! + row) continue;
      const origin = lastAtMost(starts, starts.length, at);
      first.layer[row] = origin;
      first.row[row] = at - starts[origin]!;
    }
    return first;
  });
}

function toSpan(parts: LayerParts, { layer, first, end }: PartRange): Span {
  return {
    layer,
    blobStart: parts.blobStart[first]!,
    blobEnd: parts.blobStart[end]!,
    tarStart: parts.tarStart[first]!,
    tarEnd: parts.tarStart[end]!,
  };
}

function countTotals(
  parts: LayerParts,
  spans: readonly PartRange[],
): { -readonly [name in keyof PlanTotals]: number } {
  // Bytes by the state of their part. Parts inside spans are counted with the spans instead.
  const tarBytes = new Float64Array(Object.keys(PART).length);
  let fetchBytes = 0;
  let decodedBytes = 0;
  let part = 0;
  const countUpTo = (end: number) => {
    for (; part < end; part++) {
      tarBytes[parts.state[part]!]! += parts.lengthBytes[part]!;
    }
  };
  for (const { first, end } of spans) {
    countUpTo(first);
    fetchBytes += parts.blobStart[end]! - parts.blobStart[first]!;
    for (; part < end; part++) decodedBytes += parts.lengthBytes[part]!;
  }
  countUpTo(parts.count);
  return {
    fetchBytes,
    decodedBytes,
    reusedBytes: tarBytes[PART.cached]!,
    copiedBytes: tarBytes[PART.copy]!,
    resumedBytes: tarBytes[PART.resumed]!,
    inlineBytes: tarBytes[PART.gap]! + tarBytes[PART.hole]!,
    requests: spans.length,
  };
}

function sumOf(plans: readonly LayerPlan[]): PlanTotals {
  const sum = countTotals(allocateParts(0), []);
  for (const { totals } of plans) {
    for (const name of Object.keys(sum) as Array<keyof PlanTotals>) sum[name] += totals[name];
  }
  return sum;
}

/**
 * Returns the segments of one layer. `spans` are those of the layer in order; the first is row
 * `firstSpan` of the spans of the plan.
 */
function buildSegments(parts: LayerParts, spans: readonly PartRange[], firstSpan: number): Segments {
  const rows = {
    count: 0,
    kind: new Uint8Array(parts.count),
    tarStart: new Float64Array(parts.count + 1),
    source: new Int32Array(parts.count),
    sourceOffset: new Float64Array(parts.count),
    lengthBytes: new Float64Array(parts.count),
  };
  let span = 0;
  for (let part = 0; part < parts.count; ) {
    const range = spans[span]?.first === part ? spans[span] : undefined;
    const end = range?.end ?? part + 1;
    const tarEnd = parts.tarStart[end]!;
    const bytes = tarEnd - parts.tarStart[part]!;
    if (range !== undefined) push(rows, SEGMENT.span, firstSpan + span++, 0, tarEnd, bytes);
    else if (bytes > 0) pushPart(rows, parts, part, tarEnd);
    part = end;
  }
  return trimmed(rows);
}

type Rows = { -readonly [name in keyof Segments]: Segments[name] };

function pushPart(rows: Rows, parts: LayerParts, part: number, tarEnd: number): void {
  const state = parts.state[part]!;
  const length = parts.lengthBytes[part]!;
  if (state === PART.gap || state === PART.hole) {
    pushJoined(rows, SEGMENT.inline, -1, 0, tarEnd, length);
    return;
  }
  const kind = state === PART.copy ? SEGMENT.copy : SEGMENT.cached;
  pushJoined(rows, kind, parts.source[part]!, parts.sourceOffset[part]!, tarEnd, length);
}

/**
 * Appends a segment, or lengthens the last one if this one continues it: chunks of one content,
 * pieces of one pack.
 */
function pushJoined(
  rows: Rows,
  kind: number,
  source: number,
  offset: number,
  tarEnd: number,
  lengthBytes: number,
): void {
  const last = rows.count - 1;
  if (last >= 0 && rows.kind[last] === kind && rows.source[last] === source) {
    if (kind === SEGMENT.inline || rows.sourceOffset[last]! + rows.lengthBytes[last]! === offset) {
      rows.tarStart[last + 1] = tarEnd;
      rows.lengthBytes[last]! += lengthBytes;
      return;
    }
  }
  push(rows, kind, source, offset, tarEnd, lengthBytes);
}

function push(
  rows: Rows,
  kind: number,
  source: number,
  offset: number,
  tarEnd: number,
  lengthBytes: number,
): void {
  const row = rows.count;
  rows.kind[row] = kind;
  rows.source[row] = source;
  rows.sourceOffset[row] = offset;
  rows.lengthBytes[row] = lengthBytes;
  rows.tarStart[row + 1] = tarEnd;
  rows.count = row + 1;
}

/** The arrays were allocated for the most segments possible; a cold pull has few. */
function trimmed(rows: Rows): Segments {
  const { count } = rows;
  return {
    count,
    kind: rows.kind.slice(0, count),
    tarStart: rows.tarStart.slice(0, count + 1),
    source: rows.source.slice(0, count),
    sourceOffset: rows.sourceOffset.slice(0, count),
    lengthBytes: rows.lengthBytes.slice(0, count),
  };
}

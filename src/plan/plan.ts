import { buildCells, CELL, type Cells, type LayerWant, layResumed } from './cells.js';
import { findFirstOccurrences } from './duplicates.js';
import { type CellRange, chooseRuns, cutRuns, type PlanLimits } from './spans.js';
import { buildUnsplitCells } from './unsplit-cells.js';

/** Where the bytes of a segment come from. */
export const SEGMENT = {
  /** Decoded from one span; `source` is its row in the plan's spans, the segment is the whole of it. */
  span: 0,
  /** In a pack already; `source` is the pack, `sourceOffset` the offset in it. */
  held: 1,
  /** As at another place of this pull, always an earlier one and itself no copy; `source` is the layer, `sourceOffset` the tar offset. */
  copy: 2,
  /** tar-split has them; `source` is -1. */
  inline: 3,
} as const;

/** The segments that tile one layer's tar, in order (29 bytes each). Segment i is [tarStart[i], tarStart[i + 1]). */
export interface Segments {
  readonly count: number;
  readonly kind: Uint8Array;
  /** One more than `count`: the last is the length of the tar. */
  readonly tarStart: Float64Array;
  readonly source: Int32Array;
  readonly sourceOffset: Float64Array;
  /** Bytes of the tar it has: as many as its range says, or fewer where tar offsets are allotments; of a span, not known before. */
  readonly lengthBytes: Float64Array;
}

/** The segments of one layer; `spans` are its own, in order, the first of them row `firstSpan` of the plan's. */
function buildSegments(cells: Cells, spans: readonly CellRange[], firstSpan: number): Segments {
  const rows = {
    count: 0,
    kind: new Uint8Array(cells.count),
    tarStart: new Float64Array(cells.count + 1),
    source: new Int32Array(cells.count),
    sourceOffset: new Float64Array(cells.count),
    lengthBytes: new Float64Array(cells.count),
  };
  let span = 0;
  for (let cell = 0; cell < cells.count; ) {
    if (span < spans.length && spans[span]!.first === cell) {
      const range = spans[span]!;
      const tarEnd = cells.tarStart[range.end]!;
      push(rows, SEGMENT.span, firstSpan + span, 0, tarEnd, tarEnd - cells.tarStart[cell]!);
      span++;
      cell = range.end;
      continue;
    }
    const tarEnd = cells.tarStart[cell + 1]!;
    if (tarEnd > cells.tarStart[cell]!) pushCellSegment(rows, cells, cell, tarEnd);
    cell++;
  }
  return trimmed(rows);
}

type Rows = { -readonly [name in keyof Segments]: Segments[name] };

function pushCellSegment(rows: Rows, cells: Cells, cell: number, tarEnd: number): void {
  const state = cells.state[cell]!;
  const source = cells.source[cell]!;
  const offset = cells.sourceOffset[cell]!;
  const length = cells.lengthBytes[cell]!;
  if (state === CELL.gap || state === CELL.hole) pushJoined(rows, SEGMENT.inline, -1, 0, tarEnd, length);
  else pushJoined(rows, state === CELL.copy ? SEGMENT.copy : SEGMENT.held, source, offset, tarEnd, length);
}

/** Lengthens the last segment when this one goes on where it ends: chunks of one content, pieces of one pack. */
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

/** A cold pull has few segments and room for many. */
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

/**
 * One range request: blob [blobStart, blobEnd) decodes to exactly tar [tarStart, tarEnd), or to at most so much where the
 * table's tar offsets are allotments.
 */
export interface Span {
  readonly layer: number;
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
}

/**
 * All in bytes but `requests`. fetchBytes are of the blob; the others are of the tar and add up to its length; decodedBytes
 * of a layer without tar-split is an estimate.
 */
interface PlanTotals {
  readonly fetchBytes: number;
  /** What the fetched bytes decode to. */
  readonly decodedBytes: number;
  /** Found in the store by digest. */
  readonly reusedBytes: number;
  /** The same as at an earlier place of this pull. */
  readonly copiedBytes: number;
  /** Left by a pull that was broken off. */
  readonly resumedBytes: number;
  /** To be written from tar-split. */
  readonly inlineBytes: number;
  /** How many spans. */
  readonly requests: number;
}

interface LayerPlan {
  readonly segments: Segments;
  /** Spans [firstSpan, endSpan) of the plan are this layer's. */
  readonly firstSpan: number;
  readonly endSpan: number;
  readonly totals: PlanTotals;
}

export interface PullPlan {
  /** In order of layers and tar, which is the order to fetch them in. */
  readonly spans: readonly Span[];
  readonly layers: readonly LayerPlan[];
  readonly totals: PlanTotals;
}

/**
 * Where every byte of every layer's tar will come from, and the exact totals, before the first byte of content is
 * fetched. Layers are in the order of the image; tables keep the invariants of LayerTable. Throws nothing.
 */
export function planPull(layers: readonly LayerWant[], limits: PlanLimits): PullPlan {
  const firsts = findFirstOccurrences(layers.map((want) => want.table));
  const cells = layers.map((want, layer) =>
    want.table.layout === 'tar-split'
      ? layResumed(buildCells(layers, layer, firsts[layer]!), want.resumed)
      : buildUnsplitCells(layers, layer, firsts[layer]!),
  );
  const unsplit = layers.map(({ table }) => table.layout !== 'tar-split');
  const ranges = cutRuns(cells, chooseRuns(cells, unsplit, limits), limits);
  const plans: LayerPlan[] = [];
  let firstSpan = 0;
  for (const [layer, layerCells] of cells.entries()) {
    let endSpan = firstSpan;
    while (ranges[endSpan]?.layer === layer) endSpan++;
    const own = ranges.slice(firstSpan, endSpan);
    const segments = buildSegments(layerCells, own, firstSpan);
    plans.push({ segments, firstSpan, endSpan, totals: countTotals(layerCells, own) });
    firstSpan = endSpan;
  }
  return {
    spans: ranges.map((range) => toSpan(cells[range.layer]!, range)),
    layers: plans,
    totals: plans.reduce((sum, plan) => addTotals(sum, plan.totals), NOTHING),
  };
}

function toSpan(cells: Cells, { layer, first, end }: CellRange): Span {
  return {
    layer,
    blobStart: cells.blobStart[first]!,
    blobEnd: cells.blobStart[end]!,
    tarStart: cells.tarStart[first]!,
    tarEnd: cells.tarStart[end]!,
  };
}

const NOTHING: PlanTotals = {
  fetchBytes: 0,
  decodedBytes: 0,
  reusedBytes: 0,
  copiedBytes: 0,
  resumedBytes: 0,
  inlineBytes: 0,
  requests: 0,
};

function countTotals(cells: Cells, spans: readonly CellRange[]): PlanTotals {
  // By cell state; what spans run over is counted with them instead.
  const tarBytes = new Float64Array(Object.keys(CELL).length);
  let fetchBytes = 0;
  let decodedBytes = 0;
  let cell = 0;
  const countUpTo = (end: number) => {
    for (; cell < end; cell++) {
      tarBytes[cells.state[cell]!]! += cells.lengthBytes[cell]!;
    }
  };
  for (const { first, end } of spans) {
    countUpTo(first);
    fetchBytes += cells.blobStart[end]! - cells.blobStart[first]!;
    for (; cell < end; cell++) decodedBytes += cells.lengthBytes[cell]!;
  }
  countUpTo(cells.count);
  return {
    fetchBytes,
    decodedBytes,
    reusedBytes: tarBytes[CELL.held]!,
    copiedBytes: tarBytes[CELL.copy]!,
    resumedBytes: tarBytes[CELL.resumed]!,
    inlineBytes: tarBytes[CELL.gap]! + tarBytes[CELL.hole]!,
    requests: spans.length,
  };
}

function addTotals(a: PlanTotals, b: PlanTotals): PlanTotals {
  return {
    fetchBytes: a.fetchBytes + b.fetchBytes,
    decodedBytes: a.decodedBytes + b.decodedBytes,
    reusedBytes: a.reusedBytes + b.reusedBytes,
    copiedBytes: a.copiedBytes + b.copiedBytes,
    resumedBytes: a.resumedBytes + b.resumedBytes,
    inlineBytes: a.inlineBytes + b.inlineBytes,
    requests: a.requests + b.requests,
  };
}

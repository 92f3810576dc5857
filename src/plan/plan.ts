import { lastAtMost } from '../format/search.js';
import { buildCells, CELL, type Cells } from './cells.js';
import { type CellRange, cutRuns } from './cut.js';
import { findFirstOccurrences } from './duplicates.js';
import type { PlanLimits } from './limits.js';
import { layResumed } from './resume.js';
import { chooseRuns } from './runs.js';
import { buildSegments, type Segments } from './segments.js';
import { buildUnsplitCells } from './unsplit-cells.js';
import type { LayerWant } from './want.js';

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
  /** Contents [firstContent, endContent) have bytes in this span; the first and the last may have others elsewhere. */
  readonly firstContent: number;
  readonly endContent: number;
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
    spans: ranges.map((range) => toSpan(layers[range.layer]!, cells[range.layer]!, range)),
    layers: plans,
    totals: plans.reduce((sum, plan) => addTotals(sum, plan.totals), NOTHING),
  };
}

function toSpan(want: LayerWant, cells: Cells, range: CellRange): Span {
  const { count, tarStart: contentStart, sizeBytes } = want.table;
  const tarStart = cells.tarStart[range.first]!;
  const tarEnd = cells.tarStart[range.end]!;
  let firstContent = Math.max(0, lastAtMost(contentStart, count, tarStart));
  // The last content that starts before the span may also end before it.
  if (firstContent < count && contentStart[firstContent]! + sizeBytes[firstContent]! <= tarStart)
    firstContent++;
  return {
    layer: range.layer,
    blobStart: cells.blobStart[range.first]!,
    blobEnd: cells.blobStart[range.end]!,
    tarStart,
    tarEnd,
    firstContent,
    endContent: lastAtMost(contentStart, count, tarEnd - 1) + 1,
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

import { CELL, type Cells } from './cells.js';
import type { PlanLimits } from './limits.js';

/** The cells [first, end) of a layer that one request fetches. */
export interface CellRange {
  readonly layer: number;
  readonly first: number;
  readonly end: number;
}

/**
 * The runs cut into spans, in order of layers and tar, by guided self-scheduling (Polychronopoulos and Kuck, IEEE
 * Trans. Computers C-36(12), 1987): each takes the bytes that remain / (2 x connections), so that the last ones are
 * small and all connections finish together. Cuts fall at the end of a content or chunk; the gap goes with what follows.
 */
export function cutRuns(
  layers: readonly Cells[],
  taken: readonly Uint8Array[],
  limits: PlanLimits,
): CellRange[] {
  const spans: CellRange[] = [];
  const runs = layers.flatMap((cells, layer) => runsOf(cells, taken[layer]!, layer));
  let remaining = runs.reduce((sum, run) => sum + blobBytes(layers[run.layer]!, run.first, run.end), 0);
  for (const run of runs) {
    const cells = layers[run.layer]!;
    let first = run.first;
    while (first < run.end) {
      const target = targetBytes(remaining, blobBytes(cells, first, run.end), limits);
      const end = spanEnd(cells, first, run.end, target, limits);
      // Frames that decode to nothing can stand alone at a run's end: nobody needs them.
      if (cells.tarStart[end]! > cells.tarStart[first]!) spans.push({ layer: run.layer, first, end });
      remaining -= blobBytes(cells, first, end);
      first = end;
    }
  }
  return spans;
}

function runsOf(cells: Cells, taken: Uint8Array, layer: number): CellRange[] {
  const runs: CellRange[] = [];
  let end = 0;
  for (let first = taken.indexOf(1); first >= 0; first = taken.indexOf(1, end)) {
    end = taken.indexOf(0, first);
    if (end < 0) end = cells.count;
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

function spanEnd(cells: Cells, first: number, runEnd: number, target: number, limits: PlanLimits): number {
  let end = first;
  while (end < runEnd) {
    const next = unitEnd(cells, end, runEnd, limits);
    if (end > first) {
      const onlyGaps = cells.state[next - 1] === CELL.gap;
      if (!fits(cells, first, next, limits)) {
        // A content above the limits is streamed: a gap behind it comes along instead of as a request.
        if (onlyGaps && !fits(cells, first, end, limits)) end = next;
        break;
      }
      const bytes = blobBytes(cells, first, end);
      const middle = (bytes + blobBytes(cells, first, next)) / 2;
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
function unitEnd(cells: Cells, first: number, runEnd: number, limits: PlanLimits): number {
  let content = first;
  while (content < runEnd && cells.state[content] === CELL.gap) content++;
  if (content === runEnd) return runEnd;
  const together = fits(cells, first, content + 1, limits) || !fits(cells, content, content + 1, limits);
  return together ? content + 1 : content;
}

function blobBytes(cells: Cells, first: number, end: number): number {
  return cells.blobStart[end]! - cells.blobStart[first]!;
}

function fits(cells: Cells, first: number, end: number, limits: PlanLimits): boolean {
  const tarBytes = cells.tarStart[end]! - cells.tarStart[first]!;
  return blobBytes(cells, first, end) <= limits.spanBlobBytes && tarBytes <= limits.spanTarBytes;
}

import { CELL, type Cells } from './cells.js';
import type { PlanLimits } from './limits.js';

/**
 * Which cells are fetched, one array a layer: 1 for the wanted ones and for those of the distances between them
 * that cost less as bytes than as a request. Neighbouring fetched cells make a run.
 *
 * Distances up to `gapBytes` are always fetched over. The larger ones follow smallest first over the whole pull,
 * while their sum stays within `extraShare` of the wanted bytes; of equal ones the earlier.
 */
export function chooseRuns(layers: readonly Cells[], limits: PlanLimits): Uint8Array[] {
  let wantedBytes = 0;
  const sizes: number[] = [];
  for (const cells of layers) {
    wantedBytes += wantedBytesOf(cells);
    eachDistance(cells, (_first, _end, bytes) => {
      if (bytes > limits.gapBytes) sizes.push(bytes);
    });
  }
  const taken = layers.map((cells) => cells.state.slice(0, cells.count).map(isWanted));
  const { maxBytes, ofMaxBytes } = largestTaken(sizes, wantedBytes * limits.extraShare);
  let left = ofMaxBytes;
  for (const [layer, cells] of layers.entries()) {
    eachDistance(cells, (first, end, bytes) => {
      if (bytes > limits.gapBytes) {
        if (bytes > maxBytes) return;
        if (bytes === maxBytes && left-- <= 0) return;
      }
      taken[layer]!.fill(1, first, end);
    });
  }
  return taken;
}

function isWanted(state: number): number {
  return state === CELL.wanted ? 1 : 0;
}

function wantedBytesOf(cells: Cells): number {
  let sum = 0;
  for (let row = 0; row < cells.count; row++) {
    if (cells.state[row] === CELL.wanted) sum += cells.blobStart[row + 1]! - cells.blobStart[row]!;
  }
  return sum;
}

/** The largest size that fits the budget when the smallest go first, and how many of exactly that size do. */
function largestTaken(sizes: readonly number[], budgetBytes: number) {
  let sum = 0;
  let maxBytes = 0;
  let ofMaxBytes = 0;
  for (const bytes of Float64Array.from(sizes).sort()) {
    sum += bytes;
    if (sum > budgetBytes) break;
    ofMaxBytes = bytes === maxBytes ? ofMaxBytes + 1 : 1;
    maxBytes = bytes;
  }
  return { maxBytes, ofMaxBytes };
}

/**
 * Visits the cells [first, end) of every distance and its blob bytes: what lies between two wanted cells, and
 * between a wanted cell and the layer's end or a cell that no span may run over.
 */
function eachDistance(cells: Cells, visit: (first: number, end: number, blobBytes: number) => void): void {
  let from = 0;
  let nearWanted = false;
  const close = (end: number) => {
    if (end > from) visit(from, end, cells.blobStart[end]! - cells.blobStart[from]!);
    from = end + 1;
  };
  for (let row = 0; row < cells.count; row++) {
    const state = cells.state[row]!;
    if (state === CELL.wanted) {
      close(row);
      nearWanted = true;
    } else if (state === CELL.resumed || state === CELL.hole) {
      if (nearWanted) close(row);
      from = row + 1;
      nearWanted = false;
    }
  }
  if (nearWanted) close(cells.count);
}

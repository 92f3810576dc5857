import { CELL, type Cells } from './cells.js';
import type { PlanLimits } from './limits.js';

/** The distances above `gapBytes`: cells [first, end) of a layer and their blob bytes. */
interface Distances {
  readonly layer: number[];
  readonly first: number[];
  readonly end: number[];
  readonly blobBytes: number[];
}

/**
 * Which cells are fetched, one array a layer: 1 for the wanted ones and for those of the distances between them
 * that cost less as bytes than as a request. Neighbouring fetched cells make a run.
 *
 * A distance is what lies between two wanted cells, or between a wanted cell and the layer's end or a cell that no
 * span may run over. Distances up to `gapBytes` are always fetched over, and up to `requestBytes` where most of the layer is
 * wanted. The larger ones follow smallest first over the whole pull, while their sum stays within the share of the wanted
 * bytes that layers with or without tar-split (`unsplit`) have for it; of equal ones the earlier.
 */
export function chooseRuns(
  layers: readonly Cells[],
  unsplit: readonly boolean[],
  limits: PlanLimits,
): Uint8Array[] {
  const taken = layers.map((cells) => new Uint8Array(cells.count));
  for (const kind of [false, true]) {
    const large: Distances = { layer: [], first: [], end: [], blobBytes: [] };
    let wantedBytes = 0;
    for (const [layer, cells] of layers.entries()) {
      if (unsplit[layer] !== kind) continue;
      const freeBytes = isMostlyWanted(cells, limits) ? limits.requestBytes : limits.gapBytes;
      wantedBytes += takeWanted(cells, layer, freeBytes, taken[layer]!, large);
    }
    takeSmallest(large, wantedBytes * (kind ? limits.unsplitExtraShare : limits.extraShare), taken);
  }
  return taken;
}

function isMostlyWanted({ count, state, blobStart }: Cells, { mostShare }: PlanLimits): boolean {
  let wantedBytes = 0;
  let allBytes = 0;
  for (let row = 0; row < count; row++) {
    const bytes = blobStart[row + 1]! - blobStart[row]!;
    if (state[row] === CELL.wanted) wantedBytes += bytes;
    if (state[row] !== CELL.resumed) allBytes += bytes;
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

/** Takes the wanted cells of a layer and the small distances, notes the large ones; returns the wanted blob bytes. */
function takeWanted(
  cells: Cells,
  layer: number,
  freeBytes: number,
  taken: Uint8Array,
  large: Distances,
): number {
  const { count, blobStart, state } = cells;
  let wantedBytes = 0;
  let from = 0;
  let nearWanted = false;
  for (let row = 0; row <= count; row++) {
    const isWanted = row < count && state[row] === CELL.wanted;
    const isBarrier = row === count || state[row] === CELL.resumed || state[row] === CELL.hole;
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

/** A loop, since most distances are one cell and fill() costs a call each. */
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

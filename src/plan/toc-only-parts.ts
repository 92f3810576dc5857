import { lastAtMost } from '../format/arrays.js';
import { type CutPoints, cutPoints, type LayerTable } from '../format/layer-table.js';
import type { FirstOccurrences } from './duplicates.js';
import {
  allocateParts,
  type LayerParts,
  type LayerToPlan,
  PART,
  pushPart,
  type ResumedPiece,
} from './layer-parts.js';

/** Headers decode to about eight times their compressed length, and to at least a block; only space is asked by it. */
const GAP_RATIO = 8;
const GAP_LEAST_BYTES = 512;

/** Where a part's bytes are on disk. */
interface Place {
  readonly state: number;
  readonly source: number;
  readonly offset: number;
}

const WANTED: Place = { state: PART.missing, source: -1, offset: 0 };

/**
 * The parts of one layer without tar-split, its resumed pieces included. Gaps are the headers, so they are wanted like
 * contents; a content or chunk that the store holds is not, unless its frame goes on with a gap (layout `within`).
 */
export function buildTocOnlyParts(
  layers: readonly LayerToPlan[],
  layer: number,
  firsts: FirstOccurrences,
): LayerParts {
  const input = layers[layer]!;
  const edges = cutPoints(input.table);
  const pieces = usablePieces(edges, input.resumed);
  const parts = allocateParts(edges.count + pieces.length * 2);
  let next = 0;
  for (let edge = 0; edge + 1 < edges.count; ) {
    const piece = pieces[next];
    if (piece !== undefined && piece.blobStart === edges.blobAt[edge]) {
      // Up to the edge at which a piece ends again: in between, pieces follow each other without a hole.
      for (;;) {
        const { blobEnd, pack, packOffset, lengthBytes } = pieces[next++]!;
        pushPart(parts, blobEnd, tarAtOf(edges, blobEnd), PART.resumed, pack, packOffset, lengthBytes);
        if (isEdge(edges, blobEnd)) break;
      }
      edge = edgeAt(edges, parts.blobStart[parts.count]!);
      continue;
    }
    const { state, source, offset } = placeOf(layers, input, firsts, edges, edge);
    const [tarAt, tarEnd] = [edges.tarAt[edge]!, edges.tarAt[edge + 1]!];
    const length = state === PART.missing ? estimate(input.table, edges, edge) : tarEnd - tarAt;
    pushPart(parts, edges.blobAt[edge + 1]!, tarEnd, state, source, offset, length);
    edge++;
  }
  return parts;
}

/** Where the bytes between an edge and the next are on disk, if they are, and are nothing but content. */
function placeOf(
  layers: readonly LayerToPlan[],
  input: LayerToPlan,
  firsts: FirstOccurrences,
  edges: CutPoints,
  edge: number,
): Place {
  const row = edges.row[edge]!;
  if (row < 0) return WANTED;
  const { table } = input;
  // A gap in the same frame, or (where the TOC shows none between two contents) in no frame at all.
  if (edges.tarAt[edge + 1]! > table.tarStart[row]! + table.sizeBytes[row]!) return WANTED;
  const inContent = edges.tarAt[edge]! - table.tarStart[row]!;
  if (input.cachedPack[row]! >= 0) {
    return {
      state: PART.cached,
      source: input.cachedPack[row]!,
      offset: input.cachedOffset[row]! + inContent,
    };
  }
  const chunk = edges.chunk[edge]! < 0 ? table.chunkFirst[row]! : edges.chunk[edge]!;
  const hasChunks = chunk < table.chunkFirst[row + 1]!;
  if (hasChunks && isOneChunk(table, edges, edge, chunk) && input.chunkCachedPack[chunk]! >= 0) {
    return {
      state: PART.cached,
      source: input.chunkCachedPack[chunk]!,
      offset: input.chunkCachedOffset[chunk]!,
    };
  }
  const first = layers[firsts.layer[row]!];
  if (first === undefined || first.table.layout !== 'tar-split') return WANTED;
  const firstRow = firsts.row[row]!;
  if (first.cachedPack[firstRow]! >= 0) {
    return {
      state: PART.cached,
      source: first.cachedPack[firstRow]!,
      offset: first.cachedOffset[firstRow]! + inContent,
    };
  }
  return {
    state: PART.copy,
    source: firsts.layer[row]!,
    offset: first.table.tarStart[firstRow]! + inContent,
  };
}

/** Whether the next edge is where this chunk ends: chunks whose frames do not ascend have no edges of their own. */
function isOneChunk(
  { chunkFirst, chunkTarStart }: LayerTable,
  edges: CutPoints,
  edge: number,
  chunk: number,
): boolean {
  const last = chunkFirst[edges.row[edge]! + 1]! - 1;
  return edges.row[edge + 1] === edges.row[edge]
    ? chunk < last && chunkTarStart[chunk + 1] === edges.tarAt[edge + 1]
    : chunk === last;
}

/** About what a part that has to be fetched decodes to. */
function estimate({ layout, tarStart, sizeBytes }: LayerTable, edges: CutPoints, edge: number): number {
  const blobBytes = edges.blobAt[edge + 1]! - edges.blobAt[edge]!;
  const tarBytes = edges.tarAt[edge + 1]! - edges.tarAt[edge]!;
  const row = edges.row[edge]!;
  const gapBytes = Math.min(tarBytes, Math.max(GAP_LEAST_BYTES, blobBytes * GAP_RATIO));
  if (row < 0) return gapBytes;
  const contentBytes = tarStart[row]! + sizeBytes[row]! - edges.tarAt[edge]!;
  return layout === 'separate-frames' || contentBytes >= tarBytes
    ? tarBytes
    : Math.min(tarBytes, contentBytes + GAP_LEAST_BYTES);
}

/**
 * The resumed pieces that begin and end at edges, alone or as neighbours that follow each other without a hole. Where a
 * piece begins within a content nobody could tell how much of it is still to come.
 */
function usablePieces(edges: CutPoints, resumed: readonly ResumedPiece[]): ResumedPiece[] {
  const usable: ResumedPiece[] = [];
  let chain: ResumedPiece[] = [];
  for (const piece of resumed) {
    const { blobStart, blobEnd, lengthBytes } = piece;
    const sane = blobStart < blobEnd && [blobStart, blobEnd, lengthBytes].every(Number.isSafeInteger);
    const last = chain.at(-1) ?? usable.at(-1);
    if (!sane || blobStart < (last?.blobEnd ?? 0)) continue;
    if (chain.at(-1)?.blobEnd !== blobStart) chain = [];
    if (chain.length === 0 && !isEdge(edges, blobStart)) continue;
    chain.push(piece);
    if (!isEdge(edges, blobEnd)) continue;
    if (chain.every((part) => hasRoom(edges, part))) usable.push(...chain);
    chain = [];
  }
  return usable;
}

/** Whether a piece has a part of the allotted tar to itself: where a part is shorter than its pieces are many, none is left. */
function hasRoom(edges: CutPoints, { blobStart, blobEnd }: ResumedPiece): boolean {
  return tarAtOf(edges, blobStart) < tarAtOf(edges, blobEnd);
}

function edgeAt({ blobAt, count }: CutPoints, blobOffset: number): number {
  return lastAtMost(blobAt, count, blobOffset);
}

function isEdge(edges: CutPoints, blobOffset: number): boolean {
  return edges.blobAt[edgeAt(edges, blobOffset)] === blobOffset;
}

/** The tar offset allotted to a place of the blob; within a part by proportion, so that offsets ascend with it. */
function tarAtOf(edges: CutPoints, blobOffset: number): number {
  const edge = edgeAt(edges, blobOffset);
  const blobAt = edges.blobAt[edge]!;
  const tarAt = edges.tarAt[edge]!;
  if (blobAt === blobOffset) return tarAt;
  const share = (blobOffset - blobAt) / (edges.blobAt[edge + 1]! - blobAt);
  return tarAt + Math.floor(share * (edges.tarAt[edge + 1]! - tarAt));
}

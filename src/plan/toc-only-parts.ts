import { lastAtMost } from '../format/arrays.js';
import { type CutPoints, cutPoints, type LayerTable } from '../format/layer-table.js';
import {
  allocateParts,
  type FirstOccurrences,
  type LayerParts,
  type LayerToPlan,
  PART,
  pushPart,
  type ResumedPiece,
} from './layer-parts.js';

/**
 * Headers decode to about eight times their compressed length, and to at least a block. Used only
 * to reserve disk space.
 */
const GAP_RATIO = 8;
const MIN_GAP_BYTES = 512;

/** Where the bytes of a part are on disk. */
interface Location {
  readonly state: number;
  readonly source: number;
  readonly offset: number;
}

const MISSING: Location = { state: PART.missing, source: -1, offset: 0 };

/**
 * Returns the parts of a layer without tar-split, its resumed pieces included. Gaps are headers, so
 * they are missing like contents. A cached content or chunk is not fetched, unless its last frame
 * continues with a gap (layout `shared-frames`).
 */
export function buildTocOnlyParts(
  layers: readonly LayerToPlan[],
  layer: number,
  firsts: FirstOccurrences,
): LayerParts {
  const input = layers[layer]!;
  const cuts = cutPoints(input.table);
  const pieces = usablePieces(cuts, input.resumed);
  const parts = allocateParts(cuts.count + pieces.length * 2);
  let next = 0;
  for (let cut = 0; cut + 1 < cuts.count; ) {
    const piece = pieces[next];
    if (piece !== undefined && piece.blobStart === cuts.blobAt[cut]) {
      // Up to the cut point at which a piece ends: in between, pieces follow each other without a
      // hole.
      for (;;) {
        const { blobEnd, pack, packOffset, lengthBytes } = pieces[next++]!;
        pushPart(parts, blobEnd, tarAtOf(cuts, blobEnd), PART.resumed, pack, packOffset, lengthBytes);
        if (isCut(cuts, blobEnd)) break;
      }
      cut = cutAt(cuts, parts.blobStart[parts.count]!);
      continue;
    }
    const { state, source, offset } = locationOf(layers, input, firsts, cuts, cut);
    const [tarAt, tarEnd] = [cuts.tarAt[cut]!, cuts.tarAt[cut + 1]!];
    const length = state === PART.missing ? estimate(input.table, cuts, cut) : tarEnd - tarAt;
    pushPart(parts, cuts.blobAt[cut + 1]!, tarEnd, state, source, offset, length);
    cut++;
  }
  return parts;
}

/**
 * Returns where the bytes from this cut point to the next are on disk, if they are, and are only
 * content.
 */
function locationOf(
  layers: readonly LayerToPlan[],
  input: LayerToPlan,
  firsts: FirstOccurrences,
  cuts: CutPoints,
  cut: number,
): Location {
  const row = cuts.row[cut]!;
  if (row < 0) return MISSING;
  const { table } = input;
  // A gap in the same frame, or (where the TOC shows none between two contents) in no frame.
  if (cuts.tarAt[cut + 1]! > table.tarStart[row]! + table.sizeBytes[row]!) return MISSING;
  const inContent = cuts.tarAt[cut]! - table.tarStart[row]!;
  if (input.cachedPack[row]! >= 0) {
    return cached(input.cachedPack[row]!, input.cachedOffset[row]! + inContent);
  }
  const chunk = cuts.chunk[cut]! < 0 ? table.chunkFirst[row]! : cuts.chunk[cut]!;
  const hasChunks = chunk < table.chunkFirst[row + 1]!;
  if (hasChunks && isOneChunk(table, cuts, cut, chunk) && input.chunkCachedPack[chunk]! >= 0) {
    return cached(input.chunkCachedPack[chunk]!, input.chunkCachedOffset[chunk]!);
  }
  const first = layers[firsts.layer[row]!];
  if (first === undefined || first.table.layout !== 'tar-split') return MISSING;
  const firstRow = firsts.row[row]!;
  if (first.cachedPack[firstRow]! >= 0) {
    return cached(first.cachedPack[firstRow]!, first.cachedOffset[firstRow]! + inContent);
  }
  const offset = first.table.tarStart[firstRow]! + inContent;
  return { state: PART.copy, source: firsts.layer[row]!, offset };
}

function cached(source: number, offset: number): Location {
  return { state: PART.cached, source, offset };
}

/**
 * Whether this chunk ends at the next cut point: chunks whose frames do not ascend have no cut
 * points.
 */
function isOneChunk(
  { chunkFirst, chunkTarStart }: LayerTable,
  cuts: CutPoints,
  cut: number,
  chunk: number,
): boolean {
  const last = chunkFirst[cuts.row[cut]! + 1]! - 1;
  return cuts.row[cut + 1] === cuts.row[cut]
    ? chunk < last && chunkTarStart[chunk + 1] === cuts.tarAt[cut + 1]
    : chunk === last;
}

function estimate({ layout, tarStart, sizeBytes }: LayerTable, cuts: CutPoints, cut: number): number {
  const blobBytes = cuts.blobAt[cut + 1]! - cuts.blobAt[cut]!;
  const tarBytes = cuts.tarAt[cut + 1]! - cuts.tarAt[cut]!;
  const row = cuts.row[cut]!;
  const gapBytes = Math.min(tarBytes, Math.max(MIN_GAP_BYTES, blobBytes * GAP_RATIO));
  if (row < 0) return gapBytes;
  const contentBytes = tarStart[row]! + sizeBytes[row]! - cuts.tarAt[cut]!;
  return layout === 'separate-frames' || contentBytes >= tarBytes
    ? tarBytes
    : Math.min(tarBytes, contentBytes + MIN_GAP_BYTES);
}

/**
 * Returns the resumed pieces that begin and end at cut points, alone or as a chain of pieces
 * without a hole. Where a piece begins inside a content, the remaining length of the content would
 * be unknown.
 */
function usablePieces(cuts: CutPoints, resumed: readonly ResumedPiece[]): ResumedPiece[] {
  const usable: ResumedPiece[] = [];
  let chain: ResumedPiece[] = [];
  for (const piece of resumed) {
    const { blobStart, blobEnd, lengthBytes } = piece;
    const sane = blobStart < blobEnd && [blobStart, blobEnd, lengthBytes].every(Number.isSafeInteger);
    const last = chain.at(-1) ?? usable.at(-1);
    if (!sane || blobStart < (last?.blobEnd ?? 0)) continue;
    if (chain.at(-1)?.blobEnd !== blobStart) chain = [];
    if (chain.length === 0 && !isCut(cuts, blobStart)) continue;
    chain.push(piece);
    if (!isCut(cuts, blobEnd)) continue;
    // A part with fewer tar bytes than pieces has none left for some of them.
    const haveRoom = chain.every((one) => tarAtOf(cuts, one.blobStart) < tarAtOf(cuts, one.blobEnd));
    if (haveRoom) usable.push(...chain);
    chain = [];
  }
  return usable;
}

function cutAt({ blobAt, count }: CutPoints, blobOffset: number): number {
  return lastAtMost(blobAt, count, blobOffset);
}

function isCut(cuts: CutPoints, blobOffset: number): boolean {
  return cuts.blobAt[cutAt(cuts, blobOffset)] === blobOffset;
}

/**
 * Returns the tar offset allotted to a blob offset; inside a part it is proportional, so that
 * offsets ascend.
 */
function tarAtOf(cuts: CutPoints, blobOffset: number): number {
  const cut = cutAt(cuts, blobOffset);
  const blobAt = cuts.blobAt[cut]!;
  const tarAt = cuts.tarAt[cut]!;
  if (blobAt === blobOffset) return tarAt;
  const share = (blobOffset - blobAt) / (cuts.blobAt[cut + 1]! - blobAt);
  return tarAt + Math.floor(share * (cuts.tarAt[cut + 1]! - tarAt));
}

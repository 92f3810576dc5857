import { lastAtMost } from '../format/arrays.js';
import type { LayerTable } from '../format/layer-table.js';

/**
 * A contiguous part of a blob that an interrupted pull left decoded in a pack; its bytes have been
 * verified.
 */
export interface ResumedPiece {
  readonly blobStart: number;
  readonly blobEnd: number;
  /** Offset of its decoded bytes in the layer's tar. */
  readonly tarStart: number;
  readonly lengthBytes: number;
  /** Index into the caller's list of packs. */
  readonly pack: number;
  readonly packOffset: number;
}

/**
 * A layer to plan: its contents and which of them are cached. Rows of the arrays are rows of the
 * table.
 */
export interface LayerToPlan {
  readonly table: LayerTable;
  /** Index into the caller's list of packs, or -1 for a content that no pack has completely. */
  readonly cachedPack: Int32Array;
  readonly cachedOffset: Float64Array;
  /** The same for each chunk row; not used where the whole content is cached. */
  readonly chunkCachedPack: Int32Array;
  readonly chunkCachedOffset: Float64Array;
  /** Ascending by blobStart, not overlapping. A piece that contradicts the table is ignored. */
  readonly resumed: readonly ResumedPiece[];
}

/**
 * For each content of a layer, where the same content comes first in this pull; layer -1 for the
 * first itself.
 */
export interface FirstOccurrences {
  readonly layer: Int32Array;
  readonly row: Int32Array;
}

/** The state of a part, which decides what the plan may do with it. */
export const PART = {
  /** Tar headers and padding: in a span, or inline from tar-split. */
  gap: 0,
  /** Part of a content that must be fetched. */
  missing: 1,
  /** Part of a content that a pack has. */
  cached: 2,
  /** Part of a content that comes earlier in this pull. */
  copy: 3,
  /** A piece of an interrupted pull; never inside a span. */
  resumed: 4,
  /**
   * Tar bytes without blob bytes in the table: inline, and never inside a span, which would decode
   * to less.
   */
  hole: 5,
} as const;

/**
 * A layer cut at every offset where a range may begin or end. Parts follow each other without gaps:
 * part i is [blobStart[i], blobStart[i + 1]) of the blob and [tarStart[i], tarStart[i + 1]) of the
 * tar.
 */
export interface LayerParts {
  count: number;
  readonly blobStart: Float64Array;
  readonly tarStart: Float64Array;
  readonly state: Uint8Array;
  /** Pack of a cached or resumed part, layer of a copy, else -1. */
  readonly source: Int32Array;
  /** Offset of the part's bytes in that pack, or in the tar of that layer. */
  readonly sourceOffset: Float64Array;
  /**
   * Decoded length of the part: that of its range of the tar, or less where the range is an
   * allotment; an estimate for gaps.
   */
  readonly lengthBytes: Float64Array;
}

/** Returns an empty list with room for `capacity` parts. */
export function allocateParts(capacity: number): LayerParts {
  return {
    count: 0,
    blobStart: new Float64Array(capacity + 1),
    tarStart: new Float64Array(capacity + 1),
    state: new Uint8Array(capacity),
    source: new Int32Array(capacity),
    sourceOffset: new Float64Array(capacity),
    lengthBytes: new Float64Array(capacity),
  };
}

/** Appends the part from the end of the last one to these offsets, unless it is empty. */
export function pushPart(
  parts: LayerParts,
  blobEnd: number,
  tarEnd: number,
  state: number,
  source: number,
  sourceOffset: number,
  lengthBytes = tarEnd - parts.tarStart[parts.count]!,
): void {
  const row = parts.count;
  if (blobEnd === parts.blobStart[row] && tarEnd === parts.tarStart[row]) return;
  parts.lengthBytes[row] = lengthBytes;
  parts.state[row] = state;
  parts.source[row] = source;
  parts.sourceOffset[row] = sourceOffset;
  parts.blobStart[row + 1] = blobEnd;
  parts.tarStart[row + 1] = tarEnd;
  parts.count = row + 1;
}

/**
 * Returns the parts of a layer with tar-split, without its resumed pieces: gaps, contents, and the
 * chunks of contents with chunk rows. Nothing is copied from a layer without tar-split, since the
 * offsets of its contents are known too late.
 */
export function buildParts(
  layers: readonly LayerToPlan[],
  layer: number,
  firsts: FirstOccurrences,
): LayerParts {
  const input = layers[layer]!;
  const { table } = input;
  const parts = allocateParts(table.count * 2 + 1 + table.chunkBlobStart.length);
  for (let row = 0; row < table.count; row++) {
    pushGap(parts, table.blobStart[row]!, table.tarStart[row]!);
    const firstLayer = firsts.layer[row]!;
    const first = firstLayer < 0 ? undefined : layers[firstLayer]!;
    const firstRow = firsts.row[row]!;
    if (input.cachedPack[row]! >= 0) {
      pushContent(parts, table, row, PART.cached, input.cachedPack[row]!, input.cachedOffset[row]!);
    } else if (first === undefined || first.table.layout !== 'tar-split') {
      pushMissing(parts, input, row);
    } else if (first.cachedPack[firstRow]! >= 0) {
      pushContent(parts, table, row, PART.cached, first.cachedPack[firstRow]!, first.cachedOffset[firstRow]!);
    } else {
      pushContent(parts, table, row, PART.copy, firstLayer, first.table.tarStart[firstRow]!);
    }
  }
  pushGap(parts, table.dataEnd, table.tarBytes);
  return parts;
}

function pushGap(parts: LayerParts, blobEnd: number, tarEnd: number): void {
  pushPart(parts, blobEnd, tarEnd, blobEnd === parts.blobStart[parts.count] ? PART.hole : PART.gap, -1, 0);
}

/**
 * Appends a content that lies in one place, cut at its chunks all the same, as a span may include
 * some of them.
 */
function pushContent(
  parts: LayerParts,
  table: LayerTable,
  row: number,
  state: number,
  source: number,
  offset: number,
): void {
  const tarStart = table.tarStart[row]!;
  const end = chunksEnd(table, row);
  for (let chunk = table.chunkFirst[row]! + 1; chunk < end; chunk++) {
    const done = parts.tarStart[parts.count]! - tarStart;
    const [blobAt, tarAt] = [table.chunkBlobStart[chunk]!, table.chunkTarStart[chunk]!];
    pushPart(parts, blobAt, tarAt, state, source, offset + done);
  }
  const done = parts.tarStart[parts.count]! - tarStart;
  pushPart(parts, table.blobEnd[row]!, tarStart + table.sizeBytes[row]!, state, source, offset + done);
}

/**
 * Appends a content that is cached nowhere completely: missing, except for the chunks that a pack
 * has.
 */
function pushMissing(parts: LayerParts, input: LayerToPlan, row: number): void {
  const { table } = input;
  const blobEnd = table.blobEnd[row]!;
  const tarEnd = table.tarStart[row]! + table.sizeBytes[row]!;
  const end = chunksEnd(table, row);
  let chunk = table.chunkFirst[row]!;
  if (chunk === end) pushPart(parts, blobEnd, tarEnd, PART.missing, -1, 0);
  for (; chunk < end; chunk++) {
    const last = chunk + 1 === end;
    const blobAt = last ? blobEnd : table.chunkBlobStart[chunk + 1]!;
    const tarAt = last ? tarEnd : table.chunkTarStart[chunk + 1]!;
    const pack = input.chunkCachedPack[chunk]!;
    if (pack < 0) pushPart(parts, blobAt, tarAt, PART.missing, -1, 0);
    else pushPart(parts, blobAt, tarAt, PART.cached, pack, input.chunkCachedOffset[chunk]!);
  }
}

/**
 * Returns the end of a content's chunk rows, or their beginning if the content must not be cut at
 * its chunks.
 */
function chunksEnd(table: LayerTable, row: number): number {
  const first = table.chunkFirst[row]!;
  const end = table.chunkFirst[row + 1]!;
  return first < end && chunksAscend(table, row) ? end : first;
}

/** Whether the chunks ascend in blob and tar. Otherwise the content stays whole. */
function chunksAscend(table: LayerTable, row: number): boolean {
  let blobAt = table.blobEnd[row]!;
  let tarAt = table.tarStart[row]! + table.sizeBytes[row]!;
  for (let chunk = table.chunkFirst[row + 1]! - 1; chunk >= table.chunkFirst[row]!; chunk--) {
    if (!(table.chunkBlobStart[chunk]! < blobAt && table.chunkTarStart[chunk]! < tarAt)) return false;
    blobAt = table.chunkBlobStart[chunk]!;
    tarAt = table.chunkTarStart[chunk]!;
  }
  return blobAt === table.blobStart[row] && tarAt === table.tarStart[row];
}

/**
 * Returns the parts with the usable resumed pieces in place of what they cover; parts that a piece
 * covers partly keep the remainder.
 */
export function layResumed(base: LayerParts, resumed: readonly ResumedPiece[]): LayerParts {
  const pieces = usablePieces(base, resumed);
  if (pieces.length === 0) return base;
  // A piece adds itself and may cut a part into two.
  const parts = allocateParts(base.count + pieces.length * 2);
  let next = 0;
  for (let row = 0; row < base.count; row++) {
    const blobEnd = base.blobStart[row + 1]!;
    let covered = false;
    while (!covered && next < pieces.length && pieces[next]!.blobStart < blobEnd) {
      const piece = pieces[next]!;
      if (piece.blobStart >= base.blobStart[row]!) {
        pushRemaining(parts, base, row, piece.blobStart, piece.tarStart);
        const tarEnd = piece.tarStart + piece.lengthBytes;
        pushPart(parts, piece.blobEnd, tarEnd, PART.resumed, piece.pack, piece.packOffset);
      }
      covered = piece.blobEnd >= blobEnd;
      if (piece.blobEnd <= blobEnd) next++;
    }
    if (!covered) pushRemaining(parts, base, row, blobEnd, base.tarStart[row + 1]!);
  }
  return parts;
}

/**
 * Appends the bytes from the end of the last part to these offsets as a part with the state of part
 * `row`.
 */
function pushRemaining(
  parts: LayerParts,
  base: LayerParts,
  row: number,
  blobEnd: number,
  tarEnd: number,
): void {
  const tarStart = parts.tarStart[parts.count]!;
  // The last bytes of the content came with the piece; only frames that decode to nothing remain,
  // which need no request.
  const state = tarEnd === tarStart ? PART.gap : base.state[row]!;
  const offset = base.sourceOffset[row]! + (tarStart - base.tarStart[row]!);
  pushPart(parts, blobEnd, tarEnd, state, base.source[row]!, offset);
}

/** Returns the pieces that agree with the table and with the pieces before them. */
function usablePieces(base: LayerParts, resumed: readonly ResumedPiece[]): ResumedPiece[] {
  const usable: ResumedPiece[] = [];
  const dataEnd = base.blobStart[base.count]!;
  let blobAt = 0;
  let tarAt = 0;
  for (const piece of resumed) {
    const { blobStart, blobEnd, tarStart, lengthBytes } = piece;
    const tarEnd = tarStart + lengthBytes;
    if (![blobStart, blobEnd, tarStart, lengthBytes, tarEnd].every(Number.isSafeInteger)) continue;
    if (blobStart < blobAt || blobEnd <= blobStart || blobEnd > dataEnd) continue;
    if (tarStart < tarAt || lengthBytes < 0) continue;
    const inside = startAgrees(base, blobStart, tarStart);
    if (inside === undefined || !endAgrees(base, blobEnd, tarEnd)) continue;
    // Inside a part the table does not tell the tar offset, but two adjacent pieces do.
    if (inside && blobStart === blobAt && tarStart !== tarAt) continue;
    usable.push(piece);
    blobAt = blobEnd;
    tarAt = tarEnd;
  }
  return usable;
}

/**
 * Whether a piece may begin here: true inside a part, false at the start of one, undefined if it
 * contradicts the table.
 */
function startAgrees(base: LayerParts, blobStart: number, tarStart: number): boolean | undefined {
  const row = lastAtMost(base.blobStart, base.count, blobStart);
  if (blobStart === base.blobStart[row]) return tarStart === base.tarStart[row] ? false : undefined;
  return withinTar(base, row, tarStart) ? true : undefined;
}

function endAgrees(base: LayerParts, blobEnd: number, tarEnd: number): boolean {
  // The part of the last byte: a piece ends before a hole that follows it.
  const row = lastAtMost(base.blobStart, base.count, blobEnd - 1);
  if (blobEnd === base.blobStart[row + 1]) return tarEnd === base.tarStart[row + 1];
  return withinTar(base, row, tarEnd);
}

function withinTar(base: LayerParts, row: number, tarOffset: number): boolean {
  return base.tarStart[row]! <= tarOffset && tarOffset <= base.tarStart[row + 1]!;
}

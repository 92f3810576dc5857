import { lastAtMost } from '../format/arrays.js';
import type { LayerTable } from '../format/layer-table.js';
import type { FirstOccurrences } from './duplicates.js';

/** An unbroken part of a blob that a broken-off pull left in a pack, checked by whoever found it. */
export interface ResumedPiece {
  readonly blobStart: number;
  readonly blobEnd: number;
  /** Where its decoded bytes begin in the layer's tar. */
  readonly tarStart: number;
  readonly lengthBytes: number;
  /** Index into the caller's table of packs. */
  readonly pack: number;
  readonly packOffset: number;
}

/** One layer to plan: its contents and what is on disk already. Rows of the held arrays are rows of the table. */
export interface LayerToPlan {
  readonly table: LayerTable;
  /** Index into the caller's table of packs, or -1 for a content that no pack holds whole. */
  readonly cachedPack: Int32Array;
  readonly cachedOffset: Float64Array;
  /** The same for each chunk row; not looked at when the whole content is held. */
  readonly chunkCachedPack: Int32Array;
  readonly chunkCachedOffset: Float64Array;
  /** Ascending by blobStart, not overlapping. A piece that contradicts the table is not used. */
  readonly resumed: readonly ResumedPiece[];
}

/** What the plan may do with a part. */
export const PART = {
  /** Tar headers and padding: in a span or inline. */
  gap: 0,
  /** Part of a content that has to be fetched. */
  missing: 1,
  /** Part of a content that a pack holds. */
  cached: 2,
  /** Part of a content that occurs earlier in this pull. */
  copy: 3,
  /** A piece of a broken-off pull: no span runs over it. */
  resumed: 4,
  /** Tar bytes for which the table shows no blob bytes: inline, and no span runs over it, for it would decode to less. */
  hole: 5,
} as const;

/**
 * One layer cut at every place where a range may begin or end. LayerParts tile blob and tar, in order: part i is
 * [blobStart[i], blobStart[i + 1]) of the blob and [tarStart[i], tarStart[i + 1]) of the tar.
 */
export interface LayerParts {
  count: number;
  readonly blobStart: Float64Array;
  readonly tarStart: Float64Array;
  readonly state: Uint8Array;
  /** Pack of a held or resumed part, layer of a copy, else -1. */
  readonly source: Int32Array;
  /** Where the part's bytes begin in that pack, or in that layer's tar. */
  readonly sourceOffset: Float64Array;
  /** What the part decodes to: as long as its part of the tar, or less where that is an allotment; an estimate for gaps. */
  readonly lengthBytes: Float64Array;
}

/** No parts yet, with room for `capacity`. */
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

/** Appends the part from the end of the last one to these ends; one of no bytes at all is left out. */
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
 * The parts of one layer with tar-split, without its resumed pieces: gaps, contents, and the chunks of those that have
 * chunk rows. Nothing is copied from a layer without tar-split: where its contents lie is known too late.
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

/** A content that lies whole at one place, cut at its chunks all the same: a span may run over it. */
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

/** A content that is held nowhere as a whole: fetched, but for the chunks that a pack holds. */
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

/** Where a content's chunk rows end; where they begin, when their boundaries are no places to cut. */
function chunksEnd(table: LayerTable, row: number): number {
  const first = table.chunkFirst[row]!;
  const end = table.chunkFirst[row + 1]!;
  return first < end && chunksAscend(table, row) ? end : first;
}

/** Whether every chunk has blob and tar bytes. Otherwise its ends are no places to cut, and the content stays whole. */
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

/** The parts with the usable resumed pieces laid over them; parts that a piece cuts keep what is left of them. */
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

/** Appends what lies between the last part and these ends as a part of part `row`. */
function pushRemaining(
  parts: LayerParts,
  base: LayerParts,
  row: number,
  blobEnd: number,
  tarEnd: number,
): void {
  const tarStart = parts.tarStart[parts.count]!;
  // Frames that decode to nothing are left of a content whose last bytes came with the piece: no reason to fetch.
  const state = tarEnd === tarStart ? PART.gap : base.state[row]!;
  const offset = base.sourceOffset[row]! + (tarStart - base.tarStart[row]!);
  pushPart(parts, blobEnd, tarEnd, state, base.source[row]!, offset);
}

/** The pieces that agree with the table and with those before them. */
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
    // Inside a part the table cannot tell the tar position, but two pieces that touch can.
    if (inside && blobStart === blobAt && tarStart !== tarAt) continue;
    usable.push(piece);
    blobAt = blobEnd;
    tarAt = tarEnd;
  }
  return usable;
}

/** Whether a piece may begin here: true inside a part, false at the start of one, undefined when it contradicts. */
function startAgrees(base: LayerParts, blobStart: number, tarStart: number): boolean | undefined {
  const row = lastAtMost(base.blobStart, base.count, blobStart);
  if (blobStart === base.blobStart[row]) return tarStart === base.tarStart[row] ? false : undefined;
  return withinTar(base, row, tarStart) ? true : undefined;
}

function endAgrees(base: LayerParts, blobEnd: number, tarEnd: number): boolean {
  // The part of the last byte: where a hole follows, the piece ends before the hole.
  const row = lastAtMost(base.blobStart, base.count, blobEnd - 1);
  if (blobEnd === base.blobStart[row + 1]) return tarEnd === base.tarStart[row + 1];
  return withinTar(base, row, tarEnd);
}

function withinTar(base: LayerParts, row: number, tarOffset: number): boolean {
  return base.tarStart[row]! <= tarOffset && tarOffset <= base.tarStart[row + 1]!;
}

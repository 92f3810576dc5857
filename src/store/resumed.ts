import type { PieceFields } from './index-format.js';

/** Pieces of wanted blobs that packs hold, as flat rows in the order of blob and blobStart; none overlaps another. */
export interface ResumedPieces {
  readonly count: number;
  /** Row of the wanted blobs. */
  readonly blob: Uint32Array;
  readonly blobStart: Float64Array;
  readonly blobLength: Float64Array;
  readonly tarStart: Float64Array;
  readonly lengthBytes: Float64Array;
  /** Row of the answer's packs. */
  readonly pack: Int32Array;
  readonly packOffset: Float64Array;
}

/** A piece that may be of use again. */
export interface Candidate {
  readonly blob: number;
  readonly sealed: boolean;
  readonly piece: PieceFields;
  /** Row of the answer's packs, asked only for what is chosen. */
  readonly pack: () => number;
  /** Whether its bytes are right; may read them. */
  readonly isTrue: () => boolean;
}

/**
 * The candidates that are true and do not overlap, sealed and long ones first where several begin at one place. Bytes are
 * read only of those that would be chosen.
 */
export function choosePieces(candidates: Candidate[]): ResumedPieces {
  candidates.sort(
    (a, b) =>
      a.blob - b.blob ||
      a.piece.blobStart - b.piece.blobStart ||
      Number(b.sealed) - Number(a.sealed) ||
      b.piece.blobLength - a.piece.blobLength,
  );
  const chosen: Candidate[] = [];
  let blob = -1;
  let end = 0;
  for (const candidate of candidates) {
    if (candidate.blob === blob && candidate.piece.blobStart < end) continue;
    if (!candidate.isTrue()) continue;
    chosen.push(candidate);
    blob = candidate.blob;
    end = candidate.piece.blobStart + candidate.piece.blobLength;
  }
  return {
    count: chosen.length,
    blob: Uint32Array.from(chosen, ({ blob }) => blob),
    blobStart: Float64Array.from(chosen, ({ piece }) => piece.blobStart),
    blobLength: Float64Array.from(chosen, ({ piece }) => piece.blobLength),
    tarStart: Float64Array.from(chosen, ({ piece }) => piece.tarStart),
    lengthBytes: Float64Array.from(chosen, ({ piece }) => piece.lengthBytes),
    pack: Int32Array.from(chosen, ({ pack }) => pack()),
    packOffset: Float64Array.from(chosen, ({ piece }) => piece.packOffset),
  };
}

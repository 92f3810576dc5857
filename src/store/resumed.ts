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
  /** It is as the blob has it, byte by byte: any part of it is of use. */
  readonly isBlobPiece: boolean;
  readonly piece: PieceFields;
  /** Row of the answer's packs, asked only for what is chosen. */
  readonly pack: () => number;
  /** Whether its bytes are right; may read them. */
  readonly isTrue: () => boolean;
}

/** What is left of a candidate without its first bytes, which one before it has. */
interface Chosen {
  readonly candidate: Candidate;
  readonly skipBytes: number;
}

/**
 * The candidates that are true and do not overlap, sealed and long ones first where several begin at one place; of a raw one what
 * those before it do not have. Bytes are read only of those that would be chosen.
 */
export function choosePieces(candidates: Candidate[]): ResumedPieces {
  candidates.sort(
    (a, b) =>
      a.blob - b.blob ||
      a.piece.blobStart - b.piece.blobStart ||
      Number(b.sealed) - Number(a.sealed) ||
      b.piece.blobLength - a.piece.blobLength,
  );
  const chosen: Chosen[] = [];
  let blob = -1;
  let end = 0;
  for (const candidate of candidates) {
    const { blobStart, blobLength } = candidate.piece;
    const skipBytes = candidate.blob === blob ? Math.max(0, end - blobStart) : 0;
    if (skipBytes > 0 && (!candidate.isBlobPiece || skipBytes >= blobLength)) continue;
    if (!candidate.isTrue()) continue;
    chosen.push({ candidate, skipBytes });
    blob = candidate.blob;
    end = blobStart + blobLength;
  }
  const column = (value: (piece: PieceFields, skipBytes: number) => number) =>
    Float64Array.from(chosen, ({ candidate, skipBytes }) => value(candidate.piece, skipBytes));
  return {
    count: chosen.length,
    blob: Uint32Array.from(chosen, ({ candidate }) => candidate.blob),
    blobStart: column(({ blobStart }, skipBytes) => blobStart + skipBytes),
    blobLength: column(({ blobLength }, skipBytes) => blobLength - skipBytes),
    tarStart: column(({ tarStart }) => tarStart),
    lengthBytes: column(({ lengthBytes }, skipBytes) => lengthBytes - skipBytes),
    pack: Int32Array.from(chosen, ({ candidate }) => candidate.pack()),
    packOffset: column(({ packOffset }, skipBytes) => packOffset + skipBytes),
  };
}

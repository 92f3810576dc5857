import type { LayerToc } from './layer-toc.js';

/** Whole frames that are decoded by one call. */
export interface Piece {
  readonly blobStart: number;
  readonly blobEnd: number;
}

/** At 1 MiB decoded a decode call costs little beside the decoding. */
const PIECE_TAR_BYTES = 2 ** 20;
/** About what a header and its padding decode to: the TOC does not say. */
const GAP_TAR_BYTES = 768;

/** Cuts a layer's blob at ends of chunks into pieces of about 1 MiB decoded; together they are the whole tar. */
export function floorPieces({ chunks, dataEnd }: LayerToc): Piece[] {
  const pieces: Piece[] = [];
  let blobStart = 0;
  let tarBytes = 0;
  const cut = (blobEnd: number) => {
    if (blobEnd > blobStart) pieces.push({ blobStart, blobEnd });
    blobStart = blobEnd;
    tarBytes = 0;
  };
  for (const { sizeBytes, blobEnd } of chunks) {
    tarBytes += sizeBytes + GAP_TAR_BYTES;
    if (tarBytes >= PIECE_TAR_BYTES) cut(blobEnd);
  }
  cut(dataEnd);
  return pieces;
}

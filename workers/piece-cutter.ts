import { PullError } from '../src/format/error.js';
import type { LayerTable } from '../src/format/layer-table.js';
import { lastAtMost } from '../src/format/search.js';
import type { FrameWalker } from '../src/format/zstd-frame.js';
import { DECODE_CALL_BYTES } from './decode.js';

/** Tar bytes of a piece: at 1 MiB a decode call costs little beside the decoding (5 times faster than frame by frame). */
const PIECE_TAR_BYTES = 2 ** 20;

/** What must be buffered of one frame at the most: noise is a little longer compressed than decoded. */
const OPEN_FRAME_BYTES = DECODE_CALL_BYTES + 2 ** 20;

/**
 * Says where to cut the received frames into pieces. A piece ends at a frame's end, is worth a decode call, and
 * never could decode to more than one call may yield.
 */
export class PieceCutter {
  readonly #table: LayerTable;
  readonly #pieceBytes: number;
  /** First content that ends after the frames looked at so far. */
  #row: number;
  /** About where the tar is at after the last cut. */
  #tarFrom: number;

  constructor(table: LayerTable, blobStart: number, pieceBytes: number) {
    this.#table = table;
    this.#pieceBytes = pieceBytes;
    this.#row = lastAtMost(table.blobEnd, table.count, blobStart) + 1;
    this.#tarFrom = this.#tarAt(this.#row, blobStart);
  }

  /**
   * How many of the bytes received (from `blobStart` on) make the next piece, which is whole frames; 0: wait for
   * more, unless `all` says that there is nothing to wait for. What is not 0 must be cut off then.
   * @throws PullError `unsupported` for a single frame above the limit of a decode call, decoded or as it is
   */
  next(walker: FrameWalker, blobStart: number, all: boolean): number {
    let row = this.#row;
    for (let frame = 0; frame < walker.frameCount; frame++) {
      const end = walker.frameEnd(frame);
      if (walker.boundUpTo(frame) > DECODE_CALL_BYTES) {
        if (frame === 0) throw frameTooLarge();
        return this.#cut(row, blobStart, walker.frameEnd(frame - 1));
      }
      row = this.#rowAfter(row, blobStart + end);
      if (end >= this.#pieceBytes || this.#tarAt(row, blobStart + end) - this.#tarFrom >= PIECE_TAR_BYTES) {
        return this.#cut(row, blobStart, end);
      }
    }
    if (walker.openFrameBound > DECODE_CALL_BYTES || walker.openFrameBytes > OPEN_FRAME_BYTES)
      throw frameTooLarge();
    return all && walker.frameCount > 0 ? this.#cut(row, blobStart, walker.completeBytes) : 0;
  }

  #cut(row: number, blobStart: number, end: number): number {
    this.#row = row;
    this.#tarFrom = this.#tarAt(row, blobStart + end);
    return end;
  }

  #rowAfter(row: number, blobEnd: number): number {
    let next = row;
    while (next < this.#table.count && this.#table.blobEnd[next]! <= blobEnd) next += 1;
    return next;
  }

  /** The tar offset at a place of the blob, estimated by proportion inside a content. */
  #tarAt(row: number, blobAt: number): number {
    const { count, tarStart, sizeBytes, blobStart, blobEnd } = this.#table;
    if (row < count && blobAt > blobStart[row]!) {
      const share = (blobAt - blobStart[row]!) / (blobEnd[row]! - blobStart[row]!);
      return tarStart[row]! + share * sizeBytes[row]!;
    }
    return row === 0 ? 0 : tarStart[row - 1]! + sizeBytes[row - 1]!;
  }
}

function frameTooLarge(): PullError {
  return new PullError(
    'unsupported',
    `a zstd frame could decode to more than ${DECODE_CALL_BYTES / 2 ** 20} MiB at once`,
    {
      hint: 'the layer was compressed as very large frames; push it as zstd:chunked with a current skopeo or podman',
    },
  );
}

/** The tar offset that the metadata states for a place of the blob, if it is the start or the end of a content. */
export function statedTarAt(table: LayerTable, blobAt: number): number | undefined {
  const row = lastAtMost(table.blobEnd, table.count, blobAt);
  // A content that ends here and one that starts here agree only where no gap lies between them.
  if (row >= 0 && table.blobEnd[row] === blobAt) return table.tarStart[row]! + table.sizeBytes[row]!;
  const next = row + 1;
  return next < table.count && table.blobStart[next] === blobAt ? table.tarStart[next]! : undefined;
}

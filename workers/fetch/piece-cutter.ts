import { lastAtMost } from '../../src/format/arrays.js';
import { PullError } from '../../src/format/error.js';
import { type CutPoints, cutPoints, type LayerTable } from '../../src/format/layer-table.js';
import { DECODE_CALL_BYTES } from './decode.js';

/** Tar bytes of a piece: at 1 MiB a decode call costs little beside the decoding (5 times faster than frame by frame). */
const PIECE_TAR_BYTES = 2 ** 20;

/** What must be buffered of one frame at the most: noise is a little longer compressed than decoded. */
const OPEN_FRAME_BYTES = DECODE_CALL_BYTES + 2 ** 20;

/** What finds whole frames in received bytes: FrameWalker for zstd, MemberWalker for gzip. All offsets are into the buffer. */
export interface Walker {
  readonly frameCount: number;
  readonly completeBytes: number;
  /** At most so many bytes does the incomplete frame at the end decode to, as far as that is known. */
  readonly openFrameBound: number;
  readonly openFrameBytes: number;
  frameEnd(index: number): number;
  /** The most bytes that the frames up to and including `index` decode to. */
  boundUpTo(index: number): number;
  advance(buffer: Uint8Array, lengthBytes: number): void;
  cut(offset: number): void;
}

/**
 * Says where to cut the received frames into pieces. A piece ends at a frame's end, is worth a decode call, and
 * never could decode to more than one call may yield. Without tar-split it ends where a content or gap does if it can:
 * only such pieces are of use to the pull that goes on after this one was broken off.
 */
export class PieceCutter {
  readonly #table: LayerTable;
  readonly #pieceBytes: number;
  readonly #edges: CutPoints | undefined;
  /** First content that ends after the frames looked at so far. */
  #row: number;
  /** About where the tar is at after the last cut. */
  #tarFrom: number;

  /** For the bytes of the blob from `blobStart` on, up to `blobEnd` at the most. */
  constructor(table: LayerTable, blobStart: number, pieceBytes: number, blobEnd = table.dataEnd) {
    this.#table = table;
    this.#edges = table.layout === 'tar-split' ? undefined : cutPoints(table, blobStart, blobEnd);
    this.#pieceBytes = pieceBytes;
    this.#row = lastAtMost(table.blobEnd, table.count, blobStart) + 1;
    this.#tarFrom = this.#tarAt(this.#row, blobStart);
  }

  /**
   * How many of the bytes received (from `blobStart` on) make the next piece, which is whole frames; 0: wait for
   * more, unless `all` says that there is nothing to wait for. What is not 0 must be cut off then.
   * @throws PullError `unsupported` for a single frame above the limit of a decode call, decoded or as it is
   */
  next(walker: Walker, blobStart: number, all: boolean): number {
    let row = this.#row;
    let edge = -1;
    for (let frame = 0; frame < walker.frameCount; frame++) {
      const end = walker.frameEnd(frame);
      if (walker.boundUpTo(frame) > DECODE_CALL_BYTES) {
        if (frame === 0) throw frameTooLarge(this.#table);
        return this.#cut(row, blobStart, walker.frameEnd(edge >= 0 ? edge : frame - 1));
      }
      row = this.#rowAfter(row, blobStart + end);
      if (this.#isEdge(blobStart + end)) edge = frame;
      if (end >= this.#pieceBytes || this.#tarAt(row, blobStart + end) - this.#tarFrom >= PIECE_TAR_BYTES) {
        return this.#cut(row, blobStart, edge >= 0 ? walker.frameEnd(edge) : end);
      }
    }
    if (walker.openFrameBound > DECODE_CALL_BYTES || walker.openFrameBytes > OPEN_FRAME_BYTES)
      throw frameTooLarge(this.#table);
    return all && walker.frameCount > 0 ? this.#cut(row, blobStart, walker.completeBytes) : 0;
  }

  /** Whether a content, a chunk or a gap of a layer without tar-split ends there. */
  #isEdge(blobAt: number): boolean {
    if (this.#edges === undefined) return false;
    const { blobAt: edges, count } = this.#edges;
    return edges[lastAtMost(edges, count, blobAt)] === blobAt;
  }

  #cut(rowAfter: number, blobStart: number, end: number): number {
    let row = rowAfter;
    while (row > 0 && this.#table.blobEnd[row - 1]! > blobStart + end) row -= 1;
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

function frameTooLarge({ compression }: LayerTable): PullError {
  const frame = compression === 'zstd' ? 'zstd frame' : 'gzip member';
  return new PullError(
    'unsupported',
    `a ${frame} could decode to more than ${DECODE_CALL_BYTES / 2 ** 20} MiB at once`,
    {
      hint: 'the layer was compressed in very large parts; push it as zstd:chunked with a current skopeo or podman',
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

/**
 * Free buffers of this thread. Most are of `size` bytes, the size of the first one taken: spans of one pull ask for the same. Receiving uses
 * them again, as making new ones would keep the GC busy.
 */
const free: Buffer[] = [];
let size = 0;

/** Larger ones, for frames that are larger than that: of several spans such frames are about as large. */
const freeLarge: Buffer[] = [];
let freeLargeBytes = 0;

/** Kept free buffers; more than the tasks of a thread use at a time would never be used again. */
const MAX_FREE = 32;

/** What larger ones that are free may take together: as much as one of the largest frames. */
const MAX_FREE_LARGE_BYTES = 32 * 2 ** 20;

/** Larger buffers have a multiple of this, so that the next frame fits that is a little longer. What is not written of it takes no memory. */
const STEP_BYTES = 2 ** 20;

/** A buffer of at least `bytes` bytes. */
export function acquireBuffer(bytes: number): Buffer {
  if (size === 0) size = bytes;
  if (bytes > size) return acquireLarge(bytes);
  return free.pop() ?? Buffer.allocUnsafeSlow(size);
}

/** Gives a buffer back; its owner must not touch it any more. */
export function releaseBuffer(buffer: Buffer): void {
  if (buffer.length > size) releaseLarge(buffer);
  else if (free.length < MAX_FREE) free.push(buffer);
}

function acquireLarge(bytes: number): Buffer {
  const row = freeLarge.findIndex(({ length }) => length >= bytes);
  if (row < 0) return Buffer.allocUnsafeSlow(Math.ceil(bytes / STEP_BYTES) * STEP_BYTES);
  const [buffer] = freeLarge.splice(row, 1);
  freeLargeBytes -= buffer!.length;
  return buffer!;
}

function releaseLarge(buffer: Buffer): void {
  if (freeLargeBytes + buffer.length > MAX_FREE_LARGE_BYTES) return;
  freeLarge.push(buffer);
  freeLargeBytes += buffer.length;
}

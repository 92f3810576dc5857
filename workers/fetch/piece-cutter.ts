import { lastAtMost } from '../../src/format/arrays.js';
import { PullError } from '../../src/format/error.js';
import { type CutPoints, cutPoints, type LayerTable } from '../../src/format/layer-table.js';
import { DECODE_CALL_BYTES } from '../../src/format/metadata-position.js';

/**
 * Tar bytes of a piece: with 1 MiB for each call, decoding is 5 times faster than frame by frame.
 */
const PIECE_TAR_BYTES = 2 ** 20;

/** The longest frame to buffer: noise is a little longer compressed than decoded. */
const OPEN_FRAME_BYTES = DECODE_CALL_BYTES + 2 ** 20;

/**
 * Finds complete frames in received bytes: FrameWalker for zstd, MemberWalker for gzip. Offsets are
 * those in the buffer.
 */
export interface Walker {
  readonly frameCount: number;
  readonly completeBytes: number;
  /** The maximum decoded size of the incomplete frame at the end, as far as it is known. */
  readonly openFrameBound: number;
  readonly openFrameBytes: number;
  frameEnd(index: number): number;
  /** The maximum decoded size of the frames up to and including `index`. */
  boundUpTo(index: number): number;
  advance(buffer: Uint8Array, lengthBytes: number): void;
  cut(offset: number): void;
}

/**
 * Decides where to cut the received frames into pieces. A piece is made of complete frames, is
 * large enough for a decode call, and cannot decode to more than one call may return. Without
 * tar-split it ends with a content or a gap if possible: only such pieces can be reused when an
 * interrupted pull is resumed.
 */
export class PieceCutter {
  readonly #table: LayerTable;
  readonly #pieceBytes: number;
  readonly #edges: CutPoints | undefined;
  /** The first content that ends after the last cut. */
  #row: number;
  /** The tar offset of the last cut, estimated. */
  #tarFrom: number;

  /** For bytes [blobStart, blobEnd) of the blob. */
  constructor(table: LayerTable, blobStart: number, pieceBytes: number, blobEnd = table.dataEnd) {
    this.#table = table;
    this.#edges = table.layout === 'tar-split' ? undefined : cutPoints(table, blobStart, blobEnd);
    this.#pieceBytes = pieceBytes;
    this.#row = lastAtMost(table.blobEnd, table.count, blobStart) + 1;
    this.#tarFrom = this.#tarAt(this.#row, blobStart);
  }

  /**
   * Returns the length of the next piece of the received bytes, which begin at `blobStart`; 0 if
   * there is none yet. With `all`, the complete frames are a piece, however few. The caller must
   * cut off the piece.
   * @throws PullError `unsupported` for a single frame above the limit of a decode call, compressed
   *   or decoded
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

  /** Whether a content, a chunk or a gap of a layer without tar-split ends at this blob offset. */
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

  /** The tar offset of a blob offset; inside a content an estimate, by proportion. */
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

/**
 * Returns the tar offset that the metadata states for a blob offset, if a content starts or ends
 * there.
 */
export function statedTarAt(table: LayerTable, blobAt: number): number | undefined {
  const row = lastAtMost(table.blobEnd, table.count, blobAt);
  // A content that ends here and one that starts here agree only where no gap lies between them.
  if (row >= 0 && table.blobEnd[row] === blobAt) return table.tarStart[row]! + table.sizeBytes[row]!;
  const next = row + 1;
  return next < table.count && table.blobStart[next] === blobAt ? table.tarStart[next]! : undefined;
}

/**
 * Free buffers of this thread, each of `size` bytes, the size of the first one: the spans of a pull
 * need the same. They are reused, since new ones would keep the garbage collector busy.
 */
const free: Buffer[] = [];
let size = 0;

/** Larger ones for large frames, which are of a similar size in several spans. */
const freeLarge: Buffer[] = [];
let freeLargeBytes = 0;

/** More than the tasks of a thread use at a time would never be reused. */
const MAX_FREE = 32;

/** The total of the free larger ones: as much as one of the largest frames. */
const MAX_FREE_LARGE_BYTES = 32 * 2 ** 20;

/**
 * Larger buffers are multiples of this, to fit the next frame too if it is a little longer.
 * Unwritten pages take no memory.
 */
const STEP_BYTES = 2 ** 20;

/** Returns a buffer of at least `bytes` bytes. */
export function acquireBuffer(bytes: number): Buffer {
  if (size === 0) size = bytes;
  if (bytes > size) return acquireLarge(bytes);
  return free.pop() ?? Buffer.allocUnsafeSlow(size);
}

/** Returns a buffer to the free ones; the caller must not use it any more. */
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

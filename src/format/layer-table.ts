import { DIGEST_BYTES } from './digest.js';
import { PullError } from './error.js';

/**
 * How a layer's padding and headers, the gaps between its contents, are known:
 * - `split`: tar-split has them; every tar offset of the table is true.
 * - `apart`: they are frames of their own, known when they are decoded (zstd:chunked without tar-split).
 * - `within`: a content's last frame goes on with the gap behind it (stargz writers), so a gap costs its content.
 *
 * Without tar-split, tar offsets are allotments: sizes of contents are true, gaps get more room than they need, and what
 * is decoded is never longer than what is allotted to its part of the blob.
 */
export type GapLayout = 'tar-split' | 'separate-frames' | 'shared-frames';

/**
 * The contents of one chunked layer as flat rows, in tar order, which is blob order too. Every array is a view on
 * a SharedArrayBuffer: planning, fetching and verifying threads read the same memory and a message carries handles,
 * not rows (about 64 bytes a content). Nothing writes to it once it is built.
 *
 * Invariants (checked by the builders, relied on by everybody else), for content i of `count`:
 * - sizeBytes[i] > 0; blobStart[i] < blobEnd[i] <= blobStart[i + 1]; blobEnd[count - 1] <= dataEnd. Layout `within`:
 *   contents that share a frame have the same blobStart and blobEnd, those of all their frames together, and blobEnd[i]
 *   is where the next frame begins
 * - tarStart[i] + sizeBytes[i] <= tarStart[i + 1]; tarStart[count - 1] + sizeBytes[count - 1] <= tarBytes
 * - blobStart[i] and blobEnd[i] are frame boundaries, if the TOC is true
 * - the chunk rows of content i are [chunkFirst[i], chunkFirst[i + 1]); a content within a span's limits has none, but in layout `within`.
 *   The first chunk starts where its content starts (`within`: in the frame where that has its first byte); each ends
 *   where the next starts, the last where its content ends.
 */
export interface LayerTable {
  readonly layout: GapLayout;
  /** What the frames are: zstd frames or gzip members. */
  readonly compression: 'zstd' | 'gzip';
  /** Entries of the TOC, without or with content; chunks do not count. */
  readonly entries: number;
  readonly count: number;
  /** DIGEST_BYTES bytes a content. */
  readonly digests: Uint8Array;
  readonly blobStart: Float64Array;
  readonly blobEnd: Float64Array;
  readonly tarStart: Float64Array;
  readonly sizeBytes: Float64Array;
  readonly chunkFirst: Uint32Array;
  readonly chunkBlobStart: Float64Array;
  readonly chunkTarStart: Float64Array;
  /** DIGEST_BYTES bytes a chunk. */
  readonly chunkDigests: Uint8Array;
  /** Where the data frames end in the blob: the TOC's skippable frame begins here. */
  readonly dataEnd: number;
  /** Length of the whole tar. */
  readonly tarBytes: number;
}

/**
 * No compressed byte decodes to more: a zstd block of 4 bytes to 128 KiB (RFC 8878, 3.1.1.2), deflate to 1032 times its
 * length (zlib, "Technical Details").
 */
const MOST_DECODED_BYTES = { zstd: 2 ** 15, gzip: 1032 } as const;

/**
 * Checks that no content is said to be longer than its part of the blob can decode to: room would be asked for it.
 * @throws PullError `metadata-malformed`
 */
export function checkSizes({ count, sizeBytes, blobStart, blobEnd, compression }: LayerTable): void {
  for (let row = 0; row < count; row++) {
    const blobBytes = blobEnd[row]! - blobStart[row]!;
    if (sizeBytes[row]! <= blobBytes * MOST_DECODED_BYTES[compression]) continue;
    const problem = `${blobBytes} bytes of the blob cannot decode to the ${sizeBytes[row]} of content ${row}`;
    throw new PullError('metadata-malformed', problem);
  }
}

/** A content above either limit is cut at its chunks into several spans. */
export const SPAN_BLOB_BYTES = 8 * 2 ** 20;
export const SPAN_TAR_BYTES = 32 * 2 ** 20;

/** An empty table of the given capacity on shared memory; the builder fills the arrays before anybody else sees it. */
export function allocateTable(size: {
  count: number;
  chunks: number;
  dataEnd: number;
  tarBytes: number;
  layout?: GapLayout;
  compression?: LayerTable['compression'];
  entries?: number;
}): LayerTable {
  const {
    count,
    chunks,
    dataEnd,
    tarBytes,
    layout = 'tar-split',
    compression = 'zstd',
    entries = count,
  } = size;
  const floats = (n: number) => new Float64Array(new SharedArrayBuffer(n * 8));
  const bytes = (n: number) => new Uint8Array(new SharedArrayBuffer(n));
  return {
    layout,
    compression,
    entries,
    count,
    digests: bytes(count * DIGEST_BYTES),
    blobStart: floats(count),
    blobEnd: floats(count),
    tarStart: floats(count),
    sizeBytes: floats(count),
    chunkFirst: new Uint32Array(new SharedArrayBuffer((count + 1) * 4)),
    chunkBlobStart: floats(chunks),
    chunkTarStart: floats(chunks),
    chunkDigests: bytes(chunks * DIGEST_BYTES),
    dataEnd,
    tarBytes,
  };
}

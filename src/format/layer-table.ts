import { Column, lastAtMost } from './arrays.js';
import { DIGEST_BYTES } from './digest.js';
import { PullError } from './error.js';

/**
 * How the padding and headers of a layer, the gaps between its contents, are known:
 * - `tar-split`: tar-split has them; every tar offset of the table is exact.
 * - `separate-frames`: they have frames of their own and are known once decoded (zstd:chunked
 *   without tar-split).
 * - `shared-frames`: the last frame of a content continues with the gap behind it (stargz writers),
 *   so that fetching a gap means fetching its content.
 *
 * Without tar-split, tar offsets are allotments: content sizes are exact, gaps get more room than
 * they need, and no part of the blob decodes to more than its allotment.
 */
export type GapLayout = 'tar-split' | 'separate-frames' | 'shared-frames';

/**
 * The contents of a chunked layer as flat rows in tar order, which is blob order too. Every array
 * is a view of a SharedArrayBuffer: threads for planning, fetching and verifying read the same
 * memory, and messages carry references instead of rows (about 64 bytes a content). Nothing writes
 * to a finished table.
 *
 * Invariants (checked by the builders, relied on elsewhere), for content i of `count`:
 * - sizeBytes[i] > 0; blobStart[i] < blobEnd[i] <= blobStart[i + 1]; blobEnd[count - 1] <= dataEnd.
 *   With `shared-frames`, contents that share a frame have the same blobStart and blobEnd, those of
 *   all their frames together, and blobEnd[i] is where the next frame begins.
 * - tarStart[i] + sizeBytes[i] <= tarStart[i + 1]; tarStart[count - 1] + sizeBytes[count - 1] <=
 *   tarBytes.
 * - blobStart[i] and blobEnd[i] are frame boundaries, if the TOC is true.
 * - The chunk rows of content i are [chunkFirst[i], chunkFirst[i + 1]). A content within the limits
 *   of a span has none, except with `shared-frames`. The first chunk starts where its content
 *   starts (`shared-frames`: in the frame with its first byte); each ends where the next starts,
 *   the last where its content ends.
 */
export interface LayerTable {
  readonly layout: GapLayout;
  /** Whether frames are zstd frames or gzip members. */
  readonly compression: 'zstd' | 'gzip';
  /** Entries of the TOC with or without content; chunks do not count. */
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
  /** Blob offset where the data frames end and the skippable frame of the TOC begins. */
  readonly dataEnd: number;
  /** Length of the complete tar. */
  readonly tarBytes: number;
}

/**
 * Most bytes that one compressed byte decodes to: a zstd block of 4 bytes to 128 KiB (RFC 8878,
 * 3.1.1.2), deflate to 1032 times its length (zlib, "Technical Details").
 */
const MAX_DECODED_RATIOS = { zstd: 2 ** 15, gzip: 1032 } as const;

/**
 * Checks that no content is longer than its part of the blob can decode to: disk space would be
 * reserved for it.
 * @throws PullError `metadata-malformed`
 */
export function checkSizes({ count, sizeBytes, blobStart, blobEnd, compression }: LayerTable): void {
  for (let row = 0; row < count; row++) {
    const blobBytes = blobEnd[row]! - blobStart[row]!;
    if (sizeBytes[row]! <= blobBytes * MAX_DECODED_RATIOS[compression]) continue;
    const problem = `${blobBytes} bytes of the blob cannot decode to the ${sizeBytes[row]} of content ${row}`;
    throw new PullError('metadata-malformed', problem);
  }
}

/** A content above either limit is cut at its chunks into several spans. */
export const SPAN_BLOB_BYTES = 8 * 2 ** 20;
export const SPAN_TAR_BYTES = 32 * 2 ** 20;

/**
 * Returns an empty table of this capacity on shared memory. The builder fills the arrays before any
 * other thread gets them.
 */
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

/**
 * The offsets of a layer without tar-split where a range may begin or end, ascending, one for each
 * blob offset: where a content, a gap, a frame shared by several contents, or a chunk of a content
 * with chunk rows begins, and the end. Between two cut points lies a gap, a content or chunk, or
 * (layout `shared-frames`) one of them with its gap.
 */
export interface CutPoints {
  /** The last cut point is the end, where nothing begins. */
  readonly count: number;
  readonly blobAt: Float64Array;
  /** The allotted tar offset. */
  readonly tarAt: Float64Array;
  /** The content that begins here, or whose chunk does; -1 where a gap begins, or nothing. */
  readonly row: Float64Array;
  /** The chunk that begins here and is not the first of its content; -1 otherwise. */
  readonly chunk: Float64Array;
}

type Columns = { readonly [name in 'blobAt' | 'tarAt' | 'row' | 'chunk']: Column };

/**
 * Returns the cut points in the blob range [blobStart, blobEnd] of a layer; both should be cut
 * points themselves.
 */
export function cutPoints(table: LayerTable, blobStart = 0, blobEnd = table.dataEnd): CutPoints {
  const columns = { blobAt: new Column(), tarAt: new Column(), row: new Column(), chunk: new Column() };
  if (blobStart === 0) push(columns, 0, 0, -1, -1);
  for (let row = firstRowBehind(table, blobStart); row < table.count; row++) {
    if (table.blobStart[row]! > blobEnd) break;
    pushContent(columns, table, row, blobStart, blobEnd);
  }
  if (blobEnd === table.dataEnd) push(columns, blobEnd, table.tarBytes, -1, -1);
  return cropped(columns, blobStart, blobEnd);
}

/**
 * Appends the cut points of one content; of its chunks only those in [from, to], since it may have
 * many more than a span.
 */
function pushContent(columns: Columns, table: LayerTable, row: number, from: number, to: number): void {
  const { blobStart, blobEnd, tarStart, sizeBytes, chunkFirst, chunkBlobStart, chunkTarStart } = table;
  // Only the first content of a frame begins at a cut point.
  if (row === 0 || blobStart[row]! > blobStart[row - 1]!)
    push(columns, blobStart[row]!, tarStart[row]!, row, -1);
  const end = chunkFirst[row + 1]!;
  const behind = lastAtMost(chunkBlobStart, chunkBlobStart.length, from - 1) + 1;
  for (let chunk = Math.max(chunkFirst[row]! + 1, behind); chunk < end; chunk++) {
    const at = chunkBlobStart[chunk]!;
    if (at > to) break;
    if (at > chunkBlobStart[chunk - 1]! && at < blobEnd[row]!)
      push(columns, at, chunkTarStart[chunk]!, row, chunk);
  }
  if (table.layout === 'separate-frames')
    push(columns, blobEnd[row]!, tarStart[row]! + sizeBytes[row]!, -1, -1);
}

/**
 * Appends a cut point, or replaces the last one at the same blob offset: there was nothing between
 * them.
 */
function push(columns: Columns, blobAt: number, tarAt: number, row: number, chunk: number): void {
  const { length, values } = columns.blobAt;
  if (length > 0 && values[length - 1] === blobAt)
    for (const column of Object.values(columns)) column.length--;
  columns.blobAt.push(blobAt);
  columns.tarAt.push(tarAt);
  columns.row.push(row);
  columns.chunk.push(chunk);
}

/**
 * Returns the first content with bytes behind `blobStart`, or that ends there, since the gap behind
 * it begins there.
 */
function firstRowBehind({ blobEnd, count }: LayerTable, blobStart: number): number {
  return lastAtMost(blobEnd, count, blobStart - 1) + 1;
}

function cropped(columns: Columns, blobStart: number, blobEnd: number): CutPoints {
  const { values, length } = columns.blobAt;
  let first = 0;
  while (first < length && values[first]! < blobStart) first++;
  let end = length;
  while (end > first && values[end - 1]! > blobEnd) end--;
  const part = ({ values }: Column) => values.slice(first, end);
  const { blobAt, tarAt, row, chunk } = columns;
  return { count: end - first, blobAt: part(blobAt), tarAt: part(tarAt), row: part(row), chunk: part(chunk) };
}

/**
 * Returns the first cut point at or behind `blobAt` inside a range of a layer, undefined if there
 * is none before the end of the range. The tar offset is that of the table.
 */
export function findCutPoint(
  table: LayerTable,
  { blobStart, blobEnd }: { readonly blobStart: number; readonly blobEnd: number },
  blobAt: number,
): { readonly blobAt: number; readonly tarAt: number } | undefined {
  const from = Math.max(blobAt, blobStart + 1);
  const cut =
    table.layout === 'tar-split' ? firstUnitFrom(table, from) : firstCutFrom(table, blobStart, blobEnd, from);
  return cut !== undefined && cut.blobAt < blobEnd ? cut : undefined;
}

function firstCutFrom(table: LayerTable, blobStart: number, blobEnd: number, blobAt: number) {
  const cuts = cutPoints(table, blobStart, blobEnd);
  const cut = cuts.blobAt.findIndex((at) => at >= blobAt);
  return cut < 0 ? undefined : { blobAt: cuts.blobAt[cut]!, tarAt: cuts.tarAt[cut]! };
}

/** Returns the start of the first content or chunk at or behind `blobAt`. */
function firstUnitFrom(table: LayerTable, blobAt: number) {
  const { count, blobStart, tarStart, chunkFirst, chunkBlobStart, chunkTarStart } = table;
  const before = lastAtMost(blobStart, count, blobAt - 1);
  const end = before < 0 ? 0 : chunkFirst[before + 1]!;
  for (let chunk = before < 0 ? 0 : chunkFirst[before]! + 1; chunk < end; chunk++) {
    if (chunkBlobStart[chunk]! >= blobAt && chunkBlobStart[chunk]! > chunkBlobStart[chunk - 1]!)
      return { blobAt: chunkBlobStart[chunk]!, tarAt: chunkTarStart[chunk]! };
  }
  const row = before + 1;
  return row < count ? { blobAt: blobStart[row]!, tarAt: tarStart[row]! } : undefined;
}

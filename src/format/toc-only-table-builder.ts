import { Column } from './arrays.js';
import { copyDigest, DIGEST_BYTES } from './digest.js';
import { PullError } from './error.js';
import {
  allocateTable,
  checkSizes,
  type GapLayout,
  type LayerTable,
  SPAN_BLOB_BYTES,
  SPAN_TAR_BYTES,
} from './layer-table.js';
import { scanContents, type TocEntry, tocError } from './toc.js';

/** What the table of a layer without tar-split is made from. */
export interface TocOnlyMetadata {
  /** Decoded. */
  readonly toc: Buffer;
  /** Blob offset at which the data frames end. */
  readonly dataEnd: number;
  readonly compression: LayerTable['compression'];
}

/**
 * Tar bytes allotted to the headers of an entry besides its text: its own block, blocks and headers
 * for long names or pax records, 511 bytes of padding before it. The content of the records (names,
 * xattrs, times) is in the TOC's text, in base64 or escaped at least as long. Unused allotments
 * cost nothing: a pack can have holes.
 */
const HEADER_BYTES = 4096;

/**
 * Allotted behind the last entry: two blocks of zeros, and what writers fill their last record
 * with.
 */
const END_BYTES = 2 ** 20;

/**
 * Returns the layer table of a TOC alone, on shared memory: for zstd:chunked without tar-split
 * (containers/storage before 1.47), and for what stargz writers make (nerdctl's zstd:chunked,
 * eStargz). See `GapLayout` for its tar offsets.
 * @throws PullError `metadata-malformed` naming the entry and field
 */
export function buildTocOnlyTable(metadata: TocOnlyMetadata): LayerTable {
  const rows = emptyRows(metadata);
  scanContents(metadata.toc, {
    // Stargz writers leave out the size of a last chunk that is shorter than the others.
    impliesChunkSize: true,
    addEntry: (entry) => {
      rows.entries += 1;
      rows.tarAt += HEADER_BYTES + entry.textBytes;
    },
    addContent: (entry) => addContent(rows, entry),
    addChunk: (entry) => addChunk(rows, entry),
    endContent: () => endContent(rows),
  });
  endFrames(rows, metadata.dataEnd);
  rows.tarAt += END_BYTES;
  if (!Number.isSafeInteger(rows.tarAt)) {
    throw new PullError('metadata-malformed', 'The TOC has files of impossible sizes');
  }
  const table = fillTable(rows);
  checkSizes(table);
  return table;
}

type Rows = ReturnType<typeof emptyRows>;

/** The rows so far, and the content whose chunks are being read. */
function emptyRows(metadata: TocOnlyMetadata) {
  return {
    metadata,
    digests: new Column(),
    blobStart: new Column(),
    blobEnd: new Column(),
    tarStart: new Column(),
    sizeBytes: new Column(),
    chunkFirst: new Column(),
    chunkBlobStart: new Column(),
    chunkTarStart: new Column(),
    chunkDigests: new Column(),
    entries: 0,
    layout: undefined as GapLayout | undefined,
    /** The current tar offset, as allotted. */
    tarAt: 0,
    /** First row whose blobEnd is not known yet: its frame ends where the next one begins. */
    openRow: 0,
    /** Blob offset of the current frame. */
    frameStart: 0,
    firstDigestStart: -1,
    /** Blob offset of the frame with the first bytes of the last content. */
    firstFrame: 0,
  };
}

function addContent(rows: Rows, entry: TocEntry): void {
  const { number, sizeBytes, offset, endOffset, chunkSize } = entry;
  const { dataEnd } = rows.metadata;
  const layout = endOffset > 0 ? 'separate-frames' : 'shared-frames';
  rows.layout ??= layout;
  if (rows.layout !== layout) throw tocError(number, 'endOffset is given for some files and not for others');
  if (chunkSize > sizeBytes) throw tocError(number, `chunkSize ${chunkSize} is above the size, ${sizeBytes}`);
  if (layout === 'separate-frames') {
    if (endOffset <= offset) throw tocError(number, `endOffset ${endOffset} is not beyond offset ${offset}`);
    if (endOffset > dataEnd)
      throw tocError(number, `endOffset ${endOffset} lies beyond the data, ${dataEnd}`);
    beginFrame(rows, entry);
    rows.blobEnd.push(endOffset);
    rows.openRow = rows.blobEnd.length;
    rows.frameStart = endOffset;
  } else if (entry.innerOffset === 0) {
    endFrames(rows, offset);
    beginFrame(rows, entry);
  } else if (rows.blobStart.length === 0 || offset !== rows.frameStart) {
    throw tocError(number, `innerOffset is given, but no file before it is at offset ${offset}`);
  }
  const row = rows.blobStart.length;
  // A content that shares a frame with the one before begins where that does, maybe in an earlier
  // frame.
  rows.blobStart.push(rows.openRow < row ? rows.blobStart.values[row - 1]! : offset);
  rows.digests.push(entry.digestStart);
  rows.tarStart.push(rows.tarAt);
  rows.sizeBytes.push(sizeBytes);
  rows.chunkFirst.push(rows.chunkBlobStart.length);
  rows.tarAt += sizeBytes;
  rows.firstDigestStart = entry.chunkDigestStart;
  rows.firstFrame = offset;
}

/** Begins a frame at the offset of an entry; the data before it belongs to earlier frames. */
function beginFrame(rows: Rows, { number, offset }: TocEntry): void {
  if (
    offset < rows.frameStart ||
    (offset === rows.frameStart && rows.layout === 'shared-frames' && offset > 0)
  ) {
    throw tocError(number, `offset ${offset} lies before ${rows.frameStart}, where other data is`);
  }
  if (offset >= rows.metadata.dataEnd) throw tocError(number, `offset ${offset} lies beyond the data`);
  rows.frameStart = offset;
}

/** Ends the contents of the open frame where the next frame begins. */
function endFrames(rows: Rows, blobEnd: number): void {
  for (; rows.openRow < rows.blobStart.length; rows.openRow++) rows.blobEnd.push(blobEnd);
}

function addChunk(rows: Rows, entry: TocEntry): void {
  const { number, offset, chunkOffset } = entry;
  const row = rows.blobStart.length - 1;
  if (rows.layout === 'shared-frames') {
    if (entry.innerOffset === 0) beginFrame(rows, entry);
    else if (offset !== rows.frameStart) throw tocError(number, `no file before it is at offset ${offset}`);
  } else if (offset <= lastChunkStart(rows, row) || offset >= rows.blobEnd.values[row]!) {
    throw tocError(number, `offset ${offset} lies outside its file's frames`);
  }
  if (rows.chunkFirst.values[row] === rows.chunkBlobStart.length) {
    pushChunk(rows, rows.firstDigestStart, rows.firstFrame, rows.tarStart.values[row]!);
  }
  pushChunk(rows, entry.chunkDigestStart, offset, rows.tarStart.values[row]! + chunkOffset);
}

function lastChunkStart(rows: Rows, row: number): number {
  const { chunkBlobStart, chunkFirst, blobStart } = rows;
  const chunks = chunkBlobStart.length;
  return chunks > chunkFirst.values[row]! ? chunkBlobStart.values[chunks - 1]! : blobStart.values[row]!;
}

function pushChunk(rows: Rows, digestStart: number, blobStart: number, tarStart: number): void {
  rows.chunkDigests.push(digestStart);
  rows.chunkBlobStart.push(blobStart);
  rows.chunkTarStart.push(tarStart);
}

/** Drops the chunk rows of the last content if they are not needed. */
function endContent(rows: Rows): void {
  const row = rows.blobStart.length - 1;
  if (keepsChunks(rows, row)) return;
  const first = rows.chunkFirst.values[row]!;
  for (const column of [rows.chunkDigests, rows.chunkBlobStart, rows.chunkTarStart]) column.length = first;
}

/**
 * Whether the chunk rows of a content are kept. Within the limits of a span the digest of the
 * complete content is enough. But where its last frame continues with the gap, a pack can replace
 * only the chunks before the last.
 */
function keepsChunks(
  { blobStart, blobEnd, sizeBytes, frameStart, layout, ...rows }: Rows,
  row: number,
): boolean {
  const end = layout === 'separate-frames' ? blobEnd.values[row]! : frameStart;
  const { chunkDigests, chunkFirst } = rows;
  if (end - blobStart.values[row]! > SPAN_BLOB_BYTES || sizeBytes.values[row]! > SPAN_TAR_BYTES) return true;
  const digests = chunkDigests.values.subarray(chunkFirst.values[row]!, chunkDigests.length);
  return layout === 'shared-frames' && digests.every((start) => start >= 0);
}

function fillTable(rows: Rows): LayerTable {
  const { metadata, layout = 'separate-frames', tarAt: tarBytes, entries } = rows;
  const count = rows.blobStart.length;
  const chunks = rows.chunkBlobStart.length;
  const { dataEnd, compression } = metadata;
  const table = allocateTable({ count, chunks, dataEnd, tarBytes, layout, compression, entries });
  table.blobStart.set(rows.blobStart.filled());
  table.blobEnd.set(rows.blobEnd.filled());
  table.tarStart.set(rows.tarStart.filled());
  table.sizeBytes.set(rows.sizeBytes.filled());
  table.chunkFirst.set(rows.chunkFirst.filled());
  table.chunkFirst[count] = chunks;
  table.chunkBlobStart.set(rows.chunkBlobStart.filled());
  table.chunkTarStart.set(rows.chunkTarStart.filled());
  copyDigests(metadata.toc, rows.digests, table.digests, 'digest');
  copyDigests(metadata.toc, rows.chunkDigests, table.chunkDigests, 'chunkDigest');
  return table;
}

const DIGEST_TEXT_BYTES = 'sha256:'.length + 2 * DIGEST_BYTES;

function copyDigests(toc: Buffer, starts: Column, out: Uint8Array, field: string): void {
  for (let row = 0; row < starts.length; row++) {
    const start = starts.values[row]!;
    // A longer text would continue where its quote should be.
    const isDigestText = start >= 0 && toc[start + DIGEST_TEXT_BYTES] === QUOTE;
    if (isDigestText && copyDigest(toc, start, start + DIGEST_TEXT_BYTES, out, row * DIGEST_BYTES)) continue;
    throw new PullError('metadata-malformed', `The TOC has a ${field} that is no sha256 digest`);
  }
}

const QUOTE = 0x22;

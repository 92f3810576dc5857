import { Column } from './arrays.js';
import { copyDigest, DIGEST_BYTES } from './digest.js';
import { PullError } from './error.js';
import {
  allocateTable,
  checkSizes,
  type LayerTable,
  SPAN_BLOB_BYTES,
  SPAN_TAR_BYTES,
} from './layer-table.js';
import { collectContents, sameName } from './tar-split.js';
import { scanContents, type TocEntry, tocError } from './toc.js';

/** What a layer table is made from. */
export interface DecodedMetadata {
  /** Decoded. */
  readonly toc: Buffer;
  /** Decoded. */
  readonly tarSplit: Buffer;
  /** Blob offset where the TOC's skippable frame begins and the data frames end. */
  readonly tocStart: number;
}

/**
 * Returns the layer table of a TOC and a tar-split on shared memory, with the invariants of
 * `LayerTable` checked. The n-th `reg` entry that is not empty is the n-th file of the tar-split
 * that is not empty: both are in tar order, and sizes and names must agree.
 * @throws PullError `metadata-malformed` naming the entry and field
 */
export function buildLayerTable(metadata: DecodedMetadata): LayerTable {
  const rows = emptyRows(metadata);
  const { tar } = rows;
  scanContents(metadata.toc, {
    impliesChunkSize: false,
    addEntry: () => {
      rows.entries += 1;
    },
    addContent: (entry) => addContent(rows, entry),
    addChunk: (entry) => addChunk(rows, entry),
  });
  if (rows.count !== tar.count) {
    throw new PullError(
      'metadata-malformed',
      `The TOC has ${rows.count} files with content, the tar-split ${tar.count}`,
    );
  }
  const table = fillTable(rows);
  checkSizes(table);
  return table;
}

type Rows = ReturnType<typeof emptyRows>;

/** The rows so far, and the content whose chunks are being read. */
function emptyRows(metadata: DecodedMetadata) {
  const tar = collectContents(metadata.tarSplit);
  return {
    metadata,
    tar,
    entries: 0,
    count: 0,
    digests: Buffer.alloc(tar.count * DIGEST_BYTES),
    blobStart: new Float64Array(tar.count),
    blobEnd: new Float64Array(tar.count),
    chunkFirst: new Uint32Array(tar.count + 1),
    chunkBlobStart: new Column(),
    chunkTarStart: new Column(),
    /** Offset of the text of a chunk's digest in the TOC. */
    chunkDigestStart: new Column(),
    /** The content that `chunk` entries may still belong to. */
    open: {
      /** Whether its chunks become rows. */
      large: false,
      /** Blob offset of the last chunk. */
      chunkStart: 0,
      /** Digest text of chunk 0, which the `reg` entry describes. */
      firstDigestStart: -1,
      firstDigestEnd: -1,
    },
  };
}

function addContent(rows: Rows, entry: TocEntry): void {
  const { tar, open, metadata } = rows;
  const row = rows.count;
  const { number, sizeBytes, offset, endOffset } = entry;
  if (row >= tar.count) throw tocError(number, `the tar-split has only ${tar.count} files with content`);
  if (sizeBytes !== tar.sizeBytes[row]) {
    throw tocError(number, `size is ${sizeBytes}, but ${tar.sizeBytes[row]} in the tar-split`);
  }
  if (!sameName(tar, row, metadata.toc, entry))
    throw tocError(number, 'name differs from the one in the tar-split');
  if (!copyDigest(metadata.toc, entry.digestStart, entry.digestEnd, rows.digests, row * DIGEST_BYTES)) {
    throw tocError(number, 'digest is not a sha256 digest');
  }
  const before = row === 0 ? 0 : rows.blobEnd[row - 1]!;
  if (offset < before)
    throw tocError(number, `offset ${offset} lies before ${before}, the end of the last file`);
  if (endOffset <= offset) throw tocError(number, `endOffset ${endOffset} is not beyond offset ${offset}`);
  if (endOffset > metadata.tocStart) {
    throw tocError(number, `endOffset ${endOffset} lies beyond ${metadata.tocStart}, the end of the data`);
  }
  rows.blobStart[row] = offset;
  rows.blobEnd[row] = endOffset;
  rows.chunkFirst[row] = rows.chunkBlobStart.length;
  rows.count = row + 1;
  open.large = endOffset - offset > SPAN_BLOB_BYTES || sizeBytes > SPAN_TAR_BYTES;
  open.chunkStart = offset;
  open.firstDigestStart = entry.chunkDigestStart;
  open.firstDigestEnd = entry.chunkDigestEnd;
}

function addChunk(rows: Rows, entry: TocEntry): void {
  const { open } = rows;
  const { number, offset } = entry;
  const row = rows.count - 1;
  if (offset <= open.chunkStart || offset >= rows.blobEnd[row]!)
    throw tocError(number, `offset ${offset} lies outside (${open.chunkStart}, ${rows.blobEnd[row]})`);
  open.chunkStart = offset;
  if (!open.large) return;
  if (rows.chunkBlobStart.length === rows.chunkFirst[row])
    pushChunk(rows, number, open.firstDigestStart, open.firstDigestEnd, rows.blobStart[row]!, 0);
  pushChunk(rows, number, entry.chunkDigestStart, entry.chunkDigestEnd, offset, entry.chunkOffset);
}

const scratchDigest = Buffer.alloc(DIGEST_BYTES);

function pushChunk(
  rows: Rows,
  number: number,
  digestStart: number,
  digestEnd: number,
  blobStart: number,
  chunkOffset: number,
): void {
  if (digestStart < 0 || !copyDigest(rows.metadata.toc, digestStart, digestEnd, scratchDigest, 0)) {
    const which = chunkOffset === 0 ? 'chunkDigest of its first chunk' : 'chunkDigest';
    throw tocError(number, `${which} is ${digestStart < 0 ? 'missing' : 'not a sha256 digest'}`);
  }
  rows.chunkBlobStart.push(blobStart);
  rows.chunkTarStart.push(rows.tar.tarStart[rows.count - 1]! + chunkOffset);
  rows.chunkDigestStart.push(digestStart);
}

function fillTable(rows: Rows): LayerTable {
  const { tar, metadata, count, entries } = rows;
  const chunks = rows.chunkBlobStart.length;
  rows.chunkFirst[count] = chunks;
  const table = allocateTable({ count, chunks, dataEnd: metadata.tocStart, tarBytes: tar.tarBytes, entries });
  table.digests.set(rows.digests);
  table.blobStart.set(rows.blobStart);
  table.blobEnd.set(rows.blobEnd);
  table.tarStart.set(tar.tarStart);
  table.sizeBytes.set(tar.sizeBytes);
  table.chunkFirst.set(rows.chunkFirst);
  table.chunkBlobStart.set(rows.chunkBlobStart.filled());
  table.chunkTarStart.set(rows.chunkTarStart.filled());
  const textBytes = 'sha256:'.length + 2 * DIGEST_BYTES;
  for (let chunk = 0; chunk < chunks; chunk++) {
    const start = rows.chunkDigestStart.values[chunk]!;
    copyDigest(metadata.toc, start, start + textBytes, table.chunkDigests, chunk * DIGEST_BYTES);
  }
  return table;
}

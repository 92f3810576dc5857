import { PullError } from './error.js';

/**
 * Decoded bytes to a compressed one that a layer may have. It is what deflate cannot exceed (zlib, "Technical Details"): a layer of more
 * zeros than that could never have been pushed as gzip. zstd goes up to 32,768.
 */
export const MAX_DECODED_RATIO = 1032;

/**
 * What all layers of a pull may decode to beyond that ratio. Databases and disk images that are mostly hole are pushed as they are, and
 * have up to about 10 GiB; a bomb of 64 GiB ends after this much. Zeros of this length take about ten seconds to hash; the room that
 * stays free on the disk is kept in any case.
 */
export const FREE_DECODED_BYTES = 10 * 2 ** 30;

/**
 * Memory for the metadata of one layer while it is read: TOC and tar-split, compressed and decoded, and the rows that are made of
 * them. A small file takes about 1.5 KB with a tar-split and 0.6 KB without: 260,000 or 670,000 files. A layer beyond is pulled
 * as one stream.
 */
export const MAX_METADATA_MEMORY_BYTES = 384 * 2 ** 20;

/**
 * Decoded bytes to a compressed one, of a TOC or a tar-split. TOCs have 3 to 5 (digests do not shrink) and tar-splits 20 to 24;
 * 30,000 empty directories with counted names, which nobody has, 121.
 */
const MAX_METADATA_RATIO = 256;
/** The ratio says little of a few bytes. */
const FREE_RATIO_BYTES = 2 ** 20;

/**
 * Decoded bytes to a compressed one of both together, beyond the first 96 MiB: honest layers have about 12. Memory above 300 MB
 * is for those who send a megabyte for 32, not for those who state it.
 */
const MAX_LARGE_METADATA_RATIO = 32;
const FREE_LARGE_RATIO_BYTES = 96 * 2 ** 20;

/** One part of the metadata: its length in the blob, and what it decodes to. */
export interface MetadataLength {
  readonly bytes: number;
  readonly uncompressedBytes: number;
}

/**
 * Bytes of memory that reading a layer's metadata takes, for a budget to be asked. Without tar-split there is no bound for the rows but
 * that a row is not much longer than the entry it is made of.
 * @throws PullError `metadata-malformed` when a part would decode to more than metadata can, `unsupported` for what never fits
 */
export function metadataMemoryBytes(toc: MetadataLength, tarSplit?: MetadataLength): number {
  const parts = tarSplit === undefined ? [toc] : [toc, tarSplit];
  for (const part of parts) checkRatio(part, MAX_METADATA_RATIO, FREE_RATIO_BYTES);
  const both = { bytes: sumOf(parts, 'bytes'), uncompressedBytes: sumOf(parts, 'uncompressedBytes') };
  checkRatio(both, MAX_LARGE_METADATA_RATIO, FREE_LARGE_RATIO_BYTES);
  const rowBytes = tarSplit === undefined ? toc.uncompressedBytes : 0;
  const memoryBytes = both.bytes + both.uncompressedBytes + rowBytes;
  if (memoryBytes <= MAX_METADATA_MEMORY_BYTES) return memoryBytes;
  throw new PullError(
    'unsupported',
    `reading its metadata takes ${memoryBytes} bytes of memory; ${MAX_METADATA_MEMORY_BYTES} are the limit`,
  );
}

function sumOf(parts: readonly MetadataLength[], field: keyof MetadataLength): number {
  return parts.reduce((sum, part) => sum + part[field], 0);
}

function checkRatio({ bytes, uncompressedBytes }: MetadataLength, maxRatio: number, freeBytes: number): void {
  if (uncompressedBytes <= freeBytes + bytes * maxRatio) return;
  throw new PullError(
    'metadata-malformed',
    `its metadata would decode from ${bytes} to ${uncompressedBytes} bytes; ${maxRatio} times as many are the limit`,
  );
}

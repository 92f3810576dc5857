import { PullError } from './error.js';

/**
 * Decoded bytes per compressed byte that a layer may have. Deflate cannot exceed it (zlib,
 * "Technical Details"), so a layer of more zeros could not have been pushed as gzip. zstd goes up
 * to 32,768.
 */
export const MAX_DECODED_RATIO = 1032;

/**
 * Decoded bytes that all layers of a pull may have beyond that ratio. Databases and disk images
 * that are mostly holes are pushed as they are, with up to about 10 GiB; a bomb of 64 GiB ends
 * after this much. Zeros of this length take about ten seconds to hash; the free disk space that is
 * reserved stays free in any case.
 */
export const FREE_DECODED_BYTES = 10 * 2 ** 30;

/**
 * Memory for the metadata of one layer while it is read: TOC and tar-split, compressed and decoded,
 * and the rows made of them. A small file takes about 1.5 KB with a tar-split and 0.6 KB without:
 * 260,000 or 670,000 files. Larger layers are pulled as opaque.
 */
export const MAX_METADATA_MEMORY_BYTES = 384 * 2 ** 20;

/**
 * Decoded bytes per compressed byte of a TOC or tar-split. TOCs have 3 to 5 (digests do not
 * compress) and tar-splits 20 to 24; 30,000 empty directories with numbered names have 121.
 */
const MAX_METADATA_RATIO = 256;
/** The ratio of a few bytes says little. */
const FREE_RATIO_BYTES = 2 ** 20;

/**
 * Decoded bytes per compressed byte of TOC and tar-split together, beyond the first 96 MiB: real
 * layers have about 12. More than 300 MB of memory must be backed by a megabyte sent for every 32,
 * not by a stated length.
 */
const MAX_LARGE_METADATA_RATIO = 32;
const FREE_LARGE_RATIO_BYTES = 96 * 2 ** 20;

/** TOC or tar-split: its length in the blob, and its decoded length. */
export interface MetadataLength {
  readonly bytes: number;
  readonly uncompressedBytes: number;
}

/**
 * Returns the bytes of memory that reading a layer's metadata takes. Without tar-split the rows are
 * bounded only by the length of the entries they are made of.
 * @throws PullError `metadata-malformed` if a part would decode to more than metadata can,
 *   `unsupported` for more than MAX_METADATA_MEMORY_BYTES
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

import { PullError } from './error.js';

/**
 * Memory for the metadata of one layer while it is read: TOC and tar-split, compressed and decoded, and the rows that are made of
 * them. 120 MiB of it is a layer of 75,000 files with tar-split, or of 200,000 without. With Node and its threads that
 * stays below 300 MB. A layer beyond can still be pulled as one stream.
 */
export const MAX_METADATA_MEMORY_BYTES = 128 * 2 ** 20;

/**
 * Decoded bytes to a compressed one. TOCs have 3 to 5 (digests do not shrink) and tar-splits 20 to 24; 30,000 empty directories with
 * counted names, which nobody has, 121.
 */
const MAX_METADATA_RATIO = 256;
/** The ratio says little of a few bytes. */
const FREE_RATIO_BYTES = 2 ** 20;

/** One part of the metadata: its length in the blob, and what it decodes to. */
export interface MetadataLength {
  readonly bytes: number;
  readonly rawBytes: number;
}

/**
 * Bytes of memory that reading a layer's metadata takes, for a budget to be asked. Without tar-split there is no bound for the rows but
 * that a row is not much longer than the entry it is made of.
 * @throws PullError `metadata-malformed` when a part would decode to more than metadata can, `unsupported` for what never fits
 */
export function metadataMemoryBytes(toc: MetadataLength, tarSplit?: MetadataLength): number {
  const parts = tarSplit === undefined ? [toc] : [toc, tarSplit];
  for (const { bytes, rawBytes } of parts) {
    if (rawBytes <= FREE_RATIO_BYTES + bytes * MAX_METADATA_RATIO) continue;
    throw new PullError(
      'metadata-malformed',
      `its metadata would decode from ${bytes} to ${rawBytes} bytes; ${MAX_METADATA_RATIO} times as many are the limit`,
    );
  }
  const rowBytes = tarSplit === undefined ? toc.rawBytes : 0;
  const memoryBytes = parts.reduce((sum, { bytes, rawBytes }) => sum + bytes + rawBytes, rowBytes);
  if (memoryBytes <= MAX_METADATA_MEMORY_BYTES) return memoryBytes;
  throw new PullError(
    'unsupported',
    `reading its metadata takes ${memoryBytes} bytes of memory; ${MAX_METADATA_MEMORY_BYTES} are the limit`,
  );
}

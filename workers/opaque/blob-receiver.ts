import { crc32 } from 'node:zlib';
import type { PackWriter, Region } from '../../src/store/pack-writer.js';
import { CheckpointedWriter } from '../fetch/checkpointed-writer.js';

interface Target {
  readonly writer: PackWriter;
  readonly region: Region;
  /** The 32 bytes of the blob's digest. */
  readonly blobDigest: Uint8Array;
  /** Blob offset of the region. */
  readonly blobStart: number;
}

/**
 * Returns a writer for a range of a blob in a region of a pack, which adds an index record for each
 * piece.
 */
export function blobReceiver({ writer, region, blobDigest, blobStart }: Target): CheckpointedWriter {
  /** The crc32 of the bytes that are written and not recorded. */
  let crc = 0;
  return new CheckpointedWriter({
    write(chunk, position) {
      writer.writeUnindexed(region, chunk, region.start + position);
      crc = crc32(chunk, crc);
    },
    note(start, end) {
      writer.recordBlobPart(region, {
        blobDigest,
        packOffset: region.start + start,
        lengthBytes: end - start,
        blobStart: blobStart + start,
        crc32: crc,
      });
      crc = 0;
    },
  });
}

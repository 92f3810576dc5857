import { crc32 } from 'node:zlib';
import type { PackWriter, Region } from '../../src/store/pack-writer.js';
import { CheckpointedWriter } from '../fetch/checkpointed-writer.js';

interface Target {
  readonly writer: PackWriter;
  readonly region: Region;
  /** The 32 bytes of the blob's digest. */
  readonly blobDigest: Uint8Array;
  /** Where in the blob the region begins. */
  readonly blobStart: number;
}

/** What takes a range of a blob into its region of a pack, with a record in the index for each piece. */
export function blobReceiver({ writer, region, blobDigest, blobStart }: Target): CheckpointedWriter {
  /** Of what is written and not noted. */
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

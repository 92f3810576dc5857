import { statFile } from '../../src/files/open-file.js';
import { type Digest, digestBytes } from '../../src/format/digest.js';
import type { BlobSource } from '../../src/registry/range-client.js';
import { PackWriter } from '../../src/store/pack-writer.js';
import { type PackId, packPath } from '../../src/store/paths.js';
import { paths } from '../context.js';
import type { CheckpointedWriter } from '../fetch/checkpointed-writer.js';
import { unwatch, watch } from '../ticker.js';
import { blobReceiver } from './blob-receiver.js';

/** Writes raw pieces of one blob in one thread. */
interface BlobWriter {
  readonly blob: Digest;
  readonly blobDigest: Buffer;
  readonly writer: PackWriter;
  /** The number of fetches that write to it. */
  users: number;
}

const writers = new Map<Digest, BlobWriter>();

/** A range of a blob that is written, without decoding, to this thread's pack for the blob. */
interface BlobPart {
  readonly pack: PackId;
  readonly packOffset: number;
  readonly write: CheckpointedWriter['write'];
  /**
   * Records the received bytes, so that look-ups for pieces of the blob find them. Must be called
   * once.
   */
  close(): void;
}

/** Reserves space for a range of a blob. @throws PullError as `PackWriter.reserve` */
export function openBlobPart(blob: BlobSource, blobStart: number, blobEnd: number): BlobPart {
  const entry = acquireBlobWriter(blob.digest);
  try {
    const { writer, blobDigest } = entry;
    const region = writer.reserve(blobEnd - blobStart);
    const receiver = blobReceiver({ writer, region, blobDigest, blobStart });
    watch(receiver);
    return {
      pack: region.pack,
      packOffset: region.start,
      write: receiver.write,
      close() {
        unwatch(receiver);
        try {
          receiver.note();
        } finally {
          releaseBlobWriter(entry);
        }
      },
    };
  } catch (error) {
    releaseBlobWriter(entry);
    throw error;
  }
}

/**
 * Returns the writer of this thread for raw pieces of a blob. Its pack has nothing else, so that it
 * can be deleted when the layer is proven. Closes unused packs of other blobs, since their space
 * would otherwise not be free before this thread ends; a late fetch of such a blob gets a new pack.
 * So does a blob whose pack is gone: another process may have found its pieces, proven the layer
 * and deleted it. Pair with `releaseBlobWriter`.
 */
function acquireBlobWriter(blob: Digest): BlobWriter {
  for (const other of writers.values()) {
    if (other.blob !== blob || isGone(other)) retire(other);
  }
  const entry = writers.get(blob) ?? {
    blob,
    blobDigest: digestBytes(blob),
    writer: new PackWriter(paths),
    users: 0,
  };
  entry.users += 1;
  writers.set(blob, entry);
  return entry;
}

function releaseBlobWriter(entry: BlobWriter): void {
  entry.users -= 1;
  if (writers.get(entry.blob) !== entry && entry.users === 0) entry.writer.close();
}

/** Removes a writer that is unused or whose pack is gone; its last user closes it. */
function retire(entry: BlobWriter): void {
  if (entry.users > 0 && !isGone(entry)) return;
  writers.delete(entry.blob);
  if (entry.users === 0) entry.writer.close();
}

function isGone({ writer }: BlobWriter): boolean {
  return writer.id !== undefined && statFile(packPath(paths, writer.id)) === undefined;
}

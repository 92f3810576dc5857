import { statFile } from '../../src/files/open-file.js';
import { type Digest, digestBytes } from '../../src/format/digest.js';
import type { BlobSource } from '../../src/registry/range-client.js';
import { PackWriter } from '../../src/store/pack-writer.js';
import { type PackId, packPath } from '../../src/store/paths.js';
import { paths } from '../context.js';
import type { CheckpointedWriter } from '../fetch/checkpointed-writer.js';
import { unwatch, watch } from '../ticker.js';
import { blobReceiver } from './blob-receiver.js';

/** What one thread writes raw pieces of one blob with. */
interface BlobWriter {
  readonly blob: Digest;
  readonly blobDigest: Buffer;
  readonly writer: PackWriter;
  /** Fetches that write to it now. */
  users: number;
}

const writers = new Map<Digest, BlobWriter>();

/** A range of a blob that is written as it is, to the pack that this thread has for raw pieces of the blob. */
interface BlobPart {
  readonly pack: PackId;
  readonly packOffset: number;
  readonly write: CheckpointedWriter['write'];
  /** Notes the bytes that came, so that a look-up for pieces of the blob finds them. To be called once. */
  close(): void;
}

/** Makes room for a range of a blob. @throws PullError as `PackWriter.reserve` */
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
 * The pack that this thread has for raw pieces of a blob: nothing else is in it, so that it can go when the layer is
 * proven. Packs of other blobs that nobody writes any more are closed, or their space would not be free before this
 * thread ends; a straggler of such a blob gets a new pack. So does a blob whose pack is gone: another process that
 * found its pieces may have been first to prove the layer. Whoever takes a writer gives it back.
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

/** A fetch that took the writer is over. */
function releaseBlobWriter(entry: BlobWriter): void {
  entry.users -= 1;
  if (writers.get(entry.blob) !== entry && entry.users === 0) entry.writer.close();
}

/** Gives a writer up that nobody uses, and one whose pack is gone to those that use it still. */
function retire(entry: BlobWriter): void {
  if (entry.users > 0 && !isGone(entry)) return;
  writers.delete(entry.blob);
  if (entry.users === 0) entry.writer.close();
}

function isGone({ writer }: BlobWriter): boolean {
  return writer.id !== undefined && statFile(packPath(paths, writer.id)) === undefined;
}

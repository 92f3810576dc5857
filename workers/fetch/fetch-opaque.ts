import { statFile } from '../../src/files/open-file.js';
import { type Digest, digestBytes } from '../../src/format/digest.js';
import { PullError, toFailure } from '../../src/format/error.js';
import type {
  FetchOpaqueResult,
  FetchOpaqueTask,
  MeasureBlobResult,
  MeasureBlobTask,
} from '../../src/pool/messages.js';
import type { BlobSource } from '../../src/registry/range-client.js';
import { PackWriter } from '../../src/store/pack-writer.js';
import { type PackId, packPath } from '../../src/store/paths.js';
import { paths, unwatch, watch } from '../context.js';
import { blobReceiver, type CheckpointedWriter } from './checkpointed-writer.js';
import { beginRange, countingEvents, rangeClient } from './range-client.js';

/**
 * Fetches a range of a blob and writes it without decoding. The next pull finds what was received
 * before a failure.
 */
export async function fetchOpaque(task: FetchOpaqueTask): Promise<FetchOpaqueResult> {
  const { blob, blobStart, blobEnd, control } = task;
  const { fetchRange } = await rangeClient();
  const part = openBlobPart(blob, blobStart, blobEnd);
  const { pack, packOffset } = part;
  const { events, totals, sender, stop, close } = beginRange(control);
  const fullBlob = fullBlobReceiver(blob);
  try {
    const range = { blob, start: blobStart, end: blobEnd, fullBlobInstead: fullBlob.begin };
    await fetchRange({ ...range, onBytes: part.write, events, stop });
  } catch (error) {
    return { pack, packOffset, sender: sender(), ...totals, failure: toFailure(error) };
  } finally {
    close();
    part.close();
    fullBlob.close();
  }
  const stopped = stop.end === undefined ? {} : { stoppedAt: stop.end };
  return { pack, packOffset, sender: sender(), ...totals, ...stopped };
}

/**
 * Returns the size of a blob from the response to a request for its first byte: signed URLs, to
 * which blobs are redirected, often do not allow HEAD.
 * @throws PullError as `fetchRange`; `answer-unexpected` if no endpoint states it
 */
export async function measureBlob({ blob }: MeasureBlobTask): Promise<MeasureBlobResult> {
  const { fetchRange } = await rangeClient();
  const { events, totals } = countingEvents('metadata');
  let size: number | undefined;
  const onSize = (sizeBytes: number) => {
    size = sizeBytes;
  };
  await fetchRange({ blob, start: 0, end: 1, onSize, onBytes: () => {}, events });
  if (size === undefined)
    throw new PullError('internal', `no server was asked for the size of ${blob.digest}`);
  return { ...totals, sizeBytes: size };
}

/**
 * Receives the full blob if a server sends that instead of a range, and stores it as raw pieces,
 * which later look-ups find. `begin` opens the pack; in a read-only store it returns undefined.
 */
export function fullBlobReceiver(blob: BlobSource) {
  let part: BlobPart | undefined;
  return {
    begin(): BlobPart['write'] | undefined {
      if (paths.isReadOnly) return undefined;
      part = openBlobPart(blob, 0, blob.sizeBytes);
      return part.write;
    },
    close: () => part?.close(),
  };
}

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
function openBlobPart(blob: BlobSource, blobStart: number, blobEnd: number): BlobPart {
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

/** Writes raw pieces of one blob in one thread. */
interface BlobWriter {
  readonly blob: Digest;
  readonly blobDigest: Buffer;
  readonly writer: PackWriter;
  /** The number of fetches that write to it. */
  users: number;
}

const writers = new Map<Digest, BlobWriter>();

/**
 * Returns the writer of this thread for raw pieces of a blob. Its pack has nothing else, so that it
 * can be deleted when the layer is proven. Closes unused packs of other blobs, since their space
 * would otherwise not be free before this thread ends; a late fetch of such a blob gets a new pack.
 * So does a blob whose pack is gone: another process may have found its pieces, proven the layer
 * and deleted it. Pair with `releaseBlobWriter`.
 */
function acquireBlobWriter(blob: Digest): BlobWriter {
  for (const other of writers.values()) {
    const isUsed = other.users > 0;
    if ((other.blob !== blob && !isUsed) || isGone(other)) {
      // Its last user closes it.
      writers.delete(other.blob);
      if (!isUsed) other.writer.close();
    }
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

function isGone({ writer }: BlobWriter): boolean {
  return writer.id !== undefined && statFile(packPath(paths, writer.id)) === undefined;
}

import { type Digest, digestBytes } from '../src/format/digest.js';
import { PackWriter } from '../src/store/pack-writer.js';
import { paths } from './context.js';

interface RawWriter {
  readonly writer: PackWriter;
  readonly blobDigest: Buffer;
  /** Fetches that write to it now. */
  users: number;
}

const writers = new Map<Digest, RawWriter>();

/**
 * The pack that this thread has for raw pieces of a blob: nothing else is in it, so that it can go when the layer is
 * proven. Packs of other blobs that nobody writes any more are closed, or their space would not be free before this
 * thread ends; a straggler of such a blob gets a new pack.
 */
export function takeRawWriter(blob: Digest): Omit<RawWriter, 'users'> {
  for (const [other, { writer, users }] of writers) {
    if (other === blob || users > 0) continue;
    writers.delete(other);
    writer.close();
  }
  const known = writers.get(blob) ?? {
    writer: new PackWriter(paths),
    blobDigest: digestBytes(blob),
    users: 0,
  };
  known.users += 1;
  writers.set(blob, known);
  return known;
}

/** A fetch that took the writer is over. */
export function giveRawWriter(blob: Digest): void {
  writers.get(blob)!.users -= 1;
}

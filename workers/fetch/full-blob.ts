import type { BlobSource } from '../../src/registry/range-client.js';
import { paths } from '../context.js';
import { openBlobPart } from '../opaque/blob-writers.js';
import type { CheckpointedWriter } from './checkpointed-writer.js';

/**
 * Takes a whole blob that came where a range was asked for, as raw pieces: whoever looks for pieces of the blob then finds them.
 * Nothing is opened before `begin`, which returns nothing where the store is only read.
 */
export function fullBlobReceiver(blob: BlobSource): {
  readonly begin: () => CheckpointedWriter['write'] | undefined;
  readonly close: () => void;
} {
  let part: ReturnType<typeof openBlobPart> | undefined;
  return {
    begin() {
      if (paths.isReadOnly) return undefined;
      part = openBlobPart(blob, 0, blob.sizeBytes);
      return part.write;
    },
    close: () => part?.close(),
  };
}

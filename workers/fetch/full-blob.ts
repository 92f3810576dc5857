import type { BlobSource } from '../../src/registry/range-client.js';
import { paths } from '../context.js';
import { openBlobPart } from '../opaque/blob-writers.js';
import type { CheckpointedWriter } from './checkpointed-writer.js';

/**
 * Receives the full blob if a server sends that instead of a range, and stores it as raw pieces,
 * which later look-ups find. `begin` opens the pack; in a read-only store it returns undefined.
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

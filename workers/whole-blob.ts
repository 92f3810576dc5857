import type { BlobSource } from '../src/pool/messages.js';
import { paths } from './context.js';
import type { NotedBytes } from './noted-bytes.js';
import { rawReceiver } from './raw-receiver.js';
import { giveRawWriter, takeRawWriter } from './raw-writers.js';
import { unwatch, watch } from './ticker.js';

/**
 * Takes a whole blob that came where a range was asked for, as raw pieces: whoever looks for pieces of the blob then finds them.
 * Nothing is opened before `begin`, which returns nothing where the store is only read.
 */
export function wholeBlobTaker(blob: BlobSource): {
  readonly begin: () => NotedBytes['take'] | undefined;
  readonly close: () => void;
} {
  let close = (): void => {};
  return {
    begin() {
      if (paths.isReadOnly) return undefined;
      const raw = takeRawWriter(blob.digest);
      const { writer, blobDigest } = raw;
      const region = writer.reserve(blob.sizeBytes);
      const receiver = rawReceiver({ writer, region, blobDigest, blobStart: 0 });
      watch(receiver);
      close = () => {
        unwatch(receiver);
        receiver.note();
        giveRawWriter(raw);
      };
      return receiver.take;
    },
    close: () => close(),
  };
}

import type { MessagePort } from 'node:worker_threads';
import { type MetadataLength, metadataMemoryBytes } from '../../src/format/decoded-limits.js';
import { type Failure, fromFailure } from '../../src/format/error.js';

/**
 * Asks the pull for the memory that a layer's metadata takes; resolves when there is room.
 * Rejects with PullError `metadata-malformed` or `unsupported` when there never will be.
 */
export type BookMetadata = (toc: MetadataLength, tarSplit?: MetadataLength) => Promise<void>;

/** Books with the main thread, at the other end of a port. A later booking takes the place of the one before. */
export class MetadataBooking {
  /** What is booked. */
  memoryBytes = 0;
  readonly #port: MessagePort;

  constructor(port: MessagePort) {
    this.#port = port;
  }

  readonly book: BookMetadata = async (toc, tarSplit) => {
    const memoryBytes = metadataMemoryBytes(toc, tarSplit);
    const refusal = await new Promise<Failure | null>((resolve) => {
      this.#port.once('message', resolve);
      this.#port.postMessage(memoryBytes);
    });
    if (refusal !== null) throw fromFailure(refusal);
    this.memoryBytes = memoryBytes;
  };
}

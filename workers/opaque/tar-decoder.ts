import type { DecodedQueue } from './decoded-queue.js';
import type { StreamDecoder } from './stream-decoder.js';

/** "Decodes" a blob that is a tar as it is. */
export class TarDecoder implements StreamDecoder {
  readonly #out: DecodedQueue;

  constructor(out: DecodedQueue) {
    this.#out = out;
  }

  write(bytes: Buffer): Promise<void> {
    this.#out.push(Buffer.from(bytes));
    return this.#out.room();
  }

  end(): Promise<void> {
    return this.#out.drained();
  }

  async close(): Promise<void> {}
}

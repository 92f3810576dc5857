import type { Transform } from 'node:stream';
import type { DecodedQueue } from './decoded-queue.js';

/**
 * Decoded bytes of one call of the decoder, on libuv's pool. At each call one thread waits for
 * another: 2 MiB take 10 % less time than 512 KiB, and 4 MiB no less.
 */
export const ZLIB_CHUNK_BYTES = 2 * 2 ** 20;

/** A decoder of node:zlib, fed block by block. */
export class ZlibStream {
  readonly #stream: Transform & { readonly bytesWritten: number };
  #failure: Error | undefined;
  #reject: ((error: Error) => void) | undefined;

  constructor(stream: Transform & { readonly bytesWritten: number }, out: DecodedQueue) {
    this.#stream = stream;
    out.pour(stream);
    stream.on('error', (error) => {
      this.#failure = error;
      this.#reject?.(error);
    });
  }

  /** Compressed bytes that were decoded. */
  get consumedBytes(): number {
    return this.#stream.bytesWritten;
  }

  /**
   * Decodes bytes, which must stay as they are until then; resolves with how many of them: less
   * than all when the data end before. Rejects with zlib's error.
   */
  feed(bytes: Buffer): Promise<number> {
    const before = this.consumedBytes;
    return this.#attempt((resolve) =>
      this.#stream.write(bytes, (error) => {
        if (error == null) resolve(this.consumedBytes - before);
      }),
    );
  }

  /** No more to come. Rejects with zlib's error when the data have not ended. */
  finish(): Promise<void> {
    return this.#attempt((resolve) => {
      this.#stream.once('end', resolve);
      this.#stream.end();
    });
  }

  /** Rejects pending calls, which would never settle. */
  close(): void {
    this.#stream.destroy();
    this.#reject?.(new Error('it was closed'));
  }

  #attempt<T>(start: (resolve: (value: T) => void) => void): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      if (this.#failure === undefined) start(resolve);
      else reject(this.#failure);
    });
  }
}

import { PullError } from '../format/error.js';

/** Memory for the metadata of several layers that are read at a time; a layer that needs more is read alone. */
const METADATA_BUDGET_BYTES = 48 * 2 ** 20;

/**
 * The same of all layers of a pull, one after the other: 500,000 files with tar-split. Reading takes 2 to 8 ns of CPU time for
 * each byte of it, twice for a TOC with a tar-split: metadata that is made to be slow costs a few seconds. What is beyond is
 * pulled as one stream.
 */
const MAX_PULL_METADATA_BYTES = 768 * 2 ** 20;

/** Memory that the metadata of one pull's layers takes, booked before anything is read. */
export class MetadataBudget {
  #inUseBytes = 0;
  #totalBytes = 0;
  readonly #waiting: Array<{ readonly bytes: number; readonly start: () => void }> = [];

  /**
   * Counts so many bytes among those that the pull reads.
   * @throws PullError `unsupported` when they are more than it may
   */
  count(bytes: number): void {
    if (this.#totalBytes + bytes > MAX_PULL_METADATA_BYTES) {
      throw new PullError(
        'unsupported',
        `with its metadata those of all layers take ${this.#totalBytes + bytes} bytes; ${MAX_PULL_METADATA_BYTES} are the limit`,
      );
    }
    this.#totalBytes += bytes;
  }

  /** Waits until there is room for so many bytes, in the order of the calls. */
  take(bytes: number): Promise<void> {
    return new Promise((start) => {
      this.#waiting.push({ bytes, start });
      this.#advance();
    });
  }

  /** Gives back the room for so many bytes. */
  give(bytes: number): void {
    this.#inUseBytes -= bytes;
    this.#advance();
  }

  /** What `action` resolves to, which has so many bytes meanwhile. */
  async with<T>(bytes: number, action: () => Promise<T>): Promise<T> {
    await this.take(bytes);
    try {
      return await action();
    } finally {
      this.give(bytes);
    }
  }

  #advance(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#inUseBytes > 0 && this.#inUseBytes + next.bytes > METADATA_BUDGET_BYTES) return;
      this.#waiting.shift();
      this.#inUseBytes += next.bytes;
      next.start();
    }
  }
}

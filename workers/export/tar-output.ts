import { writeSync } from 'node:fs';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { storageError, systemCode } from '../../src/files/storage-error.js';
import type { OpenFile } from '../../src/pool/messages.js';

export const STDOUT: OpenFile = { fd: 1, path: 'the standard output' };

/** Bytes written in one call. */
const BLOCK_BYTES = 2 ** 20;

/** Larger parts are written directly: copying them costs more than a call. */
const DIRECT_BYTES = 2 ** 17;

/** Delay before a full pipe is written to again: its 64 KiB drain in less. */
const FULL_PIPE_MS = 1;

/** The reader of the output has closed it. */
export class Closed extends Error {}

/** Buffers writes into large blocks. */
export class TarOutput {
  readonly #fd: number;
  readonly #path: string;
  readonly #block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #filled = 0;

  constructor({ fd, path }: OpenFile) {
    this.#fd = fd;
    this.#path = path;
  }

  /**
   * Buffers bytes without a write, or returns false: awaiting `add` for each small part costs more
   * than the copy.
   */
  put(bytes: Uint8Array): boolean {
    if (bytes.length >= DIRECT_BYTES || this.#filled + bytes.length >= BLOCK_BYTES) return false;
    this.#block.set(bytes, this.#filled);
    this.#filled += bytes.length;
    return true;
  }

  async add(bytes: Uint8Array): Promise<void> {
    if (bytes.length >= DIRECT_BYTES) {
      await this.flush();
      await this.#writeAll(bytes);
      return;
    }
    for (let done = 0; done < bytes.length; ) {
      const copied = Math.min(bytes.length - done, BLOCK_BYTES - this.#filled);
      this.#block.set(bytes.subarray(done, done + copied), this.#filled);
      done += copied;
      this.#filled += copied;
      if (this.#filled === BLOCK_BYTES) await this.flush();
    }
  }

  async flush(): Promise<void> {
    await this.#writeAll(this.#block.subarray(0, this.#filled));
    this.#filled = 0;
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) done += await this.#write(bytes, done);
    await nextTurn();
  }

  async #write(bytes: Uint8Array, done: number): Promise<number> {
    try {
      return writeSync(this.#fd, bytes, done, bytes.length - done);
    } catch (error) {
      const code = systemCode(error);
      if (code === 'EPIPE') throw new Closed();
      if (code !== 'EAGAIN') throw storageError(error, `write to ${this.#path}`);
    }
    await sleep(FULL_PIPE_MS);
    return 0;
  }
}

import { writeSync } from 'node:fs';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { storageError, systemCode } from '../../src/files/storage-error.js';
import type { OpenFile } from '../../src/pool/messages.js';

export const STDOUT: OpenFile = { fd: 1, path: 'the standard output' };

/** Bytes written with one call. */
const BLOCK_BYTES = 2 ** 20;

/** As much is written from where it is: to copy it costs more than a call. */
const DIRECT_BYTES = 2 ** 17;

/** How long a full pipe is left alone before it is tried again, in milliseconds: 64 KiB, what a pipe holds, drain in less. */
const FULL_PIPE_MS = 1;

/** The output has no reader any more. */
export class Closed extends Error {}

/** Gathers what is written to large blocks. */
export class TarOutput {
  readonly #fd: number;
  readonly #path: string;
  readonly #block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #filled = 0;

  constructor({ fd, path }: OpenFile) {
    this.#fd = fd;
    this.#path = path;
  }

  /** Takes what needs no write yet, or returns false: to wait for each of the many small parts costs more than to copy it. */
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

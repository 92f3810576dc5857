import { writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { openSpecialFile } from '../src/export/special-file.js';
import { headerAt, leastTarBytes } from '../src/export/tar-item.js';
import { TAR_END, tarPadding } from '../src/format/tar-writer.js';
import { count } from '../src/pool/counters.js';
import type { TreeRows, WriteTarResult, WriteTarTask } from '../src/pool/messages.js';
import { requireSpace } from '../src/store/disk-space.js';
import { closeWritten, storageError, systemCode } from '../src/store/storage-error.js';
import { setup } from './context.js';
import { layerSources } from './layer-sources.js';

const STDOUT = 1;

/** Bytes written with one call. */
const BLOCK_BYTES = 2 ** 20;

/** As much is written from where it is: to copy it costs more than a call. */
const DIRECT_BYTES = 2 ** 17;

/** How long a full pipe is left alone before it is tried again, in milliseconds: 64 KiB, what a pipe holds, drain in less. */
const FULL_PIPE_MS = 1;

/** Nobody reads what is written any more. */
class Closed extends Error {}

/** Writes the file system as one tar: headers made from the rows, contents from the layers. */
export async function writeTar({ tree, to }: WriteTarTask): Promise<WriteTarResult> {
  if (to === undefined) return writeItems(tree, new TarOutput(STDOUT, 'the standard output'));
  if ('fd' in to) {
    await requireSpace(dirname(to.path), leastTarBytes(tree));
    return writeItems(tree, new TarOutput(to.fd, to.path));
  }
  const fd = await openSpecialFile(to);
  try {
    return await writeItems(tree, new TarOutput(fd, to.path));
  } finally {
    closeWritten(fd, to.path);
  }
}

async function writeItems(tree: TreeRows, output: TarOutput): Promise<WriteTarResult> {
  const sources = layerSources();
  try {
    for (let row = 0; row < tree.count; row++) {
      const header = headerAt(tree, row);
      if (!output.put(header)) await output.add(header);
      const sizeBytes = tree.sizeBytes[row]!;
      const source = sources[tree.layer[row]!]!;
      for (let done = 0; done < sizeBytes; ) {
        const part = source.part(tree.contentStart[row]! + done, sizeBytes - done);
        if (!output.put(part)) await output.add(part);
        done += part.length;
        count(setup.counters, 'written', part.length);
      }
      const padding = tarPadding(sizeBytes);
      if (!output.put(padding)) await output.add(padding);
    }
    await output.add(TAR_END);
    await output.flush();
  } catch (error) {
    if (!(error instanceof Closed)) throw error;
    return { closed: true };
  }
  return { closed: false };
}

/** Gathers what is written to large blocks. */
class TarOutput {
  readonly #fd: number;
  readonly #name: string;
  readonly #block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #filled = 0;

  constructor(fd: number, name: string) {
    this.#fd = fd;
    this.#name = name;
  }

  /** Takes what needs no write yet, or returns false: to wait for each of the many small parts costs more than to copy it. */
  put(bytes: Buffer): boolean {
    if (bytes.length >= DIRECT_BYTES || this.#filled + bytes.length >= BLOCK_BYTES) return false;
    this.#block.set(bytes, this.#filled);
    this.#filled += bytes.length;
    return true;
  }

  async add(bytes: Buffer): Promise<void> {
    if (bytes.length >= DIRECT_BYTES) {
      await this.flush();
      await this.#writeAll(bytes);
      return;
    }
    for (let done = 0; done < bytes.length; ) {
      const copied = bytes.copy(this.#block, this.#filled, done);
      done += copied;
      this.#filled += copied;
      if (this.#filled === BLOCK_BYTES) await this.flush();
    }
  }

  async flush(): Promise<void> {
    await this.#writeAll(this.#block.subarray(0, this.#filled));
    this.#filled = 0;
  }

  async #writeAll(bytes: Buffer): Promise<void> {
    for (let done = 0; done < bytes.length; ) done += await this.#write(bytes, done);
    await nextTurn();
  }

  async #write(bytes: Buffer, done: number): Promise<number> {
    try {
      return writeSync(this.#fd, bytes, done, bytes.length - done);
    } catch (error) {
      const code = systemCode(error);
      if (code === 'EPIPE') throw new Closed();
      if (code !== 'EAGAIN') throw storageError(error, `write to ${this.#name}`);
    }
    await sleep(FULL_PIPE_MS);
    return 0;
  }
}

import { createHash } from 'node:crypto';
import { writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import type { MessagePort } from 'node:worker_threads';
import { FILE, headerAt, leastTarBytes } from '../../src/export/file-tree.js';
import { openSpecialFile } from '../../src/export/output-files.js';
import { requireSpace } from '../../src/files/disk-space.js';
import { closeWritten, storageError, systemCode, writeFully } from '../../src/files/storage-error.js';
import { type Digest, digestOfBytes } from '../../src/format/digest.js';
import { TAR_END, tarPadding } from '../../src/format/tar-writer.js';
import type {
  ArchiveLayer,
  ExportLayerResult,
  ExportLayerTask,
  OpenFile,
  StreamLayerTask,
  StreamPort,
  TreeRows,
  WriteArchiveResult,
  WriteArchiveTask,
  WritePickedResult,
  WritePickedTask,
  WriteTarResult,
  WriteTarTask,
} from '../../src/pool/messages.js';
import { count } from '../../src/pool/shared-memory.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { PackedParts, paths, setup } from '../context.js';
import { layerSources } from './layer-sources.js';
import { ROWS_A_TURN } from './tree-directories.js';

/** Writes the file system as one tar: headers from the rows, contents from the layers. */
export async function writeTar({ tree, to }: WriteTarTask): Promise<WriteTarResult> {
  if (to === undefined) return writeItems(tree, new TarOutput(STDOUT));
  if ('port' in to) return writeItems(tree, new TarOutput(to));
  if ('fd' in to) {
    await requireSpace(dirname(to.path), leastTarBytes(tree));
    return writeItems(tree, new TarOutput(to));
  }
  const fd = await openSpecialFile(to);
  try {
    return await writeItems(tree, new TarOutput({ fd, path: to.path }));
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

/**
 * Writes an archive of layers to the standard output and hashes each layer. The documents that list
 * the layers come last: if a layer is damaged, the reader gets no image and no end of the archive.
 */
export async function writeArchive({ layers, documents }: WriteArchiveTask): Promise<WriteArchiveResult> {
  const output = new TarOutput(STDOUT);
  try {
    for (const [row, layer] of layers.entries()) {
      await output.add(layer.header);
      if (!(await writeLayer(layer, output))) return { closed: false, damaged: row };
      await output.add(tarPadding(layer.tarBytes));
    }
    for (const { header, bytes } of documents) {
      await output.add(header);
      await output.add(bytes);
      await output.add(tarPadding(bytes.length));
    }
    await output.add(TAR_END);
    await output.flush();
  } catch (error) {
    if (!(error instanceof Closed)) throw error;
    return { closed: true };
  }
  return { closed: false };
}

/** Writes a layer. Returns whether its bytes hash to the DiffID. */
async function writeLayer({ diffId, extents }: ArchiveLayer, output: TarOutput): Promise<boolean> {
  const digest = await hashBlocks(ExtentList.fromRows(extents), async (block) => {
    await output.add(block);
    count(setup.counters, 'written', block.length);
  });
  return digest === diffId;
}

/** Writes a layer's tar to a file and hashes it. */
export async function exportLayer({ file, position, extents }: ExportLayerTask): Promise<ExportLayerResult> {
  let at = position;
  const digest = await hashBlocks(ExtentList.fromRows(extents), (block) => {
    writeFully(file.fd, file.path, block, at);
    threadClock.addBytes('write', block.length);
    at += block.length;
    count(setup.counters, 'written', block.length);
    return nextTurn();
  });
  return { digest };
}

/** Sends a layer's tar to the main thread and hashes it. */
export async function streamLayer({ extents, to }: StreamLayerTask): Promise<ExportLayerResult> {
  const reader = new StreamReader(to);
  const digest = await hashBlocks(ExtentList.fromRows(extents), (block) => reader.send(block));
  return { digest };
}

/** Writes headers and padding of a tar to this thread's pack, and hashes the tar. */
export async function writePicked({ tree, contents }: WritePickedTask): Promise<WritePickedResult> {
  const { extents, packs } = await packTree(tree, ExtentList.fromRows(contents));
  const digest = await hashBlocks(extents, () => nextTurn());
  return { digest, extents: extents.toRows(), packs: [...packs] };
}

async function packTree(tree: TreeRows, contents: ExtentList): Promise<PackedParts> {
  const parts = new PackedParts();
  let at = 0;
  for (let row = 0; row < tree.count; row++) {
    if (row % ROWS_A_TURN === 0) await nextTurn();
    parts.add(headerAt(tree, row));
    if (tree.type[row] !== FILE || tree.sizeBytes[row] === 0) continue;
    const sizeBytes = tree.sizeBytes[row]!;
    parts.flush();
    parts.extents.append(contents.slice(at, at + sizeBytes));
    at += sizeBytes;
    parts.add(tarPadding(sizeBytes));
  }
  parts.add(TAR_END);
  parts.flush();
  return parts;
}

/** Reads extents block by block for `use`. Returns the digest of all bytes. */
async function hashBlocks(extents: ExtentList, use: (block: Buffer) => Promise<void>): Promise<Digest> {
  const hash = createHash('sha256');
  const reader = new PackReader(paths);
  try {
    for (const block of reader.blocks(extents)) {
      const started = threadClock.start();
      hash.update(block);
      threadClock.end('hash', started, block.length);
      await use(block);
    }
  } finally {
    reader.close();
  }
  return digestOfBytes(hash.digest());
}

const STDOUT: OpenFile = { fd: 1, path: 'the standard output' };

/** Bytes written in one call. */
const BLOCK_BYTES = 2 ** 20;

/** Larger parts are written directly: copying them costs more than a call. */
const DIRECT_BYTES = 2 ** 17;

/** Delay before a full pipe is written to again: its 64 KiB drain in less. */
const FULL_PIPE_MS = 1;

/** The reader of the output has closed it. */
class Closed extends Error {}

/** Blocks on their way to the main thread, at most 1 MiB each. */
const MAX_BLOCKS_SENT = 4;

/** Sends blocks to the main thread, which answers each with a message when it has used it. */
class StreamReader {
  readonly #port: MessagePort;
  #unused = 0;
  #wake: () => void = () => {};

  constructor({ port }: StreamPort) {
    this.#port = port;
    port.on('message', () => {
      this.#unused -= 1;
      this.#wake();
    });
  }

  async send(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    while (this.#unused === MAX_BLOCKS_SENT) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#unused += 1;
    const { buffer } = new Uint8Array(bytes);
    this.#port.postMessage(buffer, [buffer]);
  }
}

/** Buffers writes into large blocks. */
class TarOutput {
  readonly #fd: number;
  readonly #path: string;
  readonly #reader: StreamReader | undefined;
  readonly #block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #filled = 0;

  constructor(to: OpenFile | StreamPort) {
    const isPort = 'port' in to;
    this.#reader = isPort ? new StreamReader(to) : undefined;
    this.#fd = isPort ? -1 : to.fd;
    this.#path = isPort ? '' : to.path;
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
    if (this.#reader !== undefined) return this.#reader.send(bytes);
    for (let done = 0; done < bytes.length; ) done += await this.#write(bytes, done);
    await nextTurn();
  }

  async #write(bytes: Uint8Array, done: number): Promise<number> {
    try {
      const written = writeSync(this.#fd, bytes, done, bytes.length - done);
      threadClock.addBytes('write', written);
      return written;
    } catch (error) {
      const code = systemCode(error);
      if (code === 'EPIPE') throw new Closed();
      if (code !== 'EAGAIN') throw storageError(error, `write to ${this.#path}`);
    }
    const started = threadClock.start();
    await sleep(FULL_PIPE_MS);
    threadClock.endWait('write', started);
    return 0;
  }
}

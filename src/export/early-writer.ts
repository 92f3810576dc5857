import { dirname } from 'node:path';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { requireSpace } from '../files/disk-space.js';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { BlockTagRows, EarlyRows, FileBatch, IncomingBytes, WorkerSetup } from '../pool/messages.js';
import type { CounterReader } from '../pool/shared-memory.js';
import type { StageRecorder } from '../pool/stages.js';
import type { WorkerPool } from '../pool/worker-pool.js';
import { ExtentList, type ExtentRows } from '../store/extents.js';
import { assumeGnuTar } from './abilities.js';
import { BLOCK_BYTES } from './block-tags.js';
import { exportThreads, startExportPool } from './export-run.js';
import { inspectDirectory, requireDirectory } from './export-schemes.js';
import { contentBytes, type FileTree } from './file-tree.js';
import { openRootfsTarget, type RootfsTarget } from './rootfs-target.js';

/**
 * A layer whose files are written while it is pulled: its bytes on disk, and the files that wait
 * for more.
 */
export class EarlyLayer {
  readonly diffId: Digest;
  /** Its number in the messages to and from threads. */
  readonly row: number;
  /** Undefined before the first attempt at it. */
  tags: BlockTagRows | undefined;
  isWhole = false;
  isProven = false;
  readonly #extents = new ExtentList();
  readonly #waiting: FileBatch[] = [];

  constructor(diffId: Digest, row: number) {
    this.diffId = diffId;
    this.row = row;
  }

  /** Extents of the bytes on disk; undefined when there are none. */
  get extents(): ExtentRows | undefined {
    return this.#extents.count === 0 ? undefined : this.#extents.toRows();
  }

  /** Adds the next bytes of the tar, which are on disk. */
  feed(rows: ExtentRows): void {
    this.#extents.append(ExtentList.fromRows(rows));
  }

  /** Adds files to write. Batches arrive in the order of the tar. */
  add(batch: FileBatch): void {
    this.#waiting.push(batch);
  }

  /**
   * Removes the next batch whose bytes are on disk, and returns it with the part of the tar that
   * contains them.
   * @throws Error when the tar ends before them
   */
  nextBatch(): { readonly batch: FileBatch; readonly extents: ExtentRows } | undefined {
    const [batch] = this.#waiting;
    if (batch === undefined) return undefined;
    const { lengthBytes } = this.#extents;
    const end = batch.endBlock * BLOCK_BYTES;
    if (lengthBytes < end && !this.isWhole) return undefined;
    if (lengthBytes < batch.endBytes) throw new Error('the tar is shorter than its headers say');
    this.#waiting.shift();
    const part = this.#extents.slice(batch.firstBlock * BLOCK_BYTES, Math.min(lengthBytes, end));
    return { batch, extents: part.toRows() };
  }
}

/** One thread reads headers while layers are pulled, the others write files. */
const MIN_THREADS = 2;

export interface EarlyWriterOptions {
  readonly directory: string;
  readonly setup: WorkerSetup;
  readonly sameOwner: boolean;
  /** Limit of the entries of all layers for files to be written early. */
  readonly maxEntries: number;
  readonly stages: StageRecorder | undefined;
  readonly layers: readonly EarlyLayer[];
  /** The image's layers, lowest first. */
  readonly order: readonly Digest[];
  /** Called with each batch of files of a layer after their headers are read. */
  readonly onBatch: (layer: EarlyLayer, batch: FileBatch) => void;
}

/**
 * Threads that write files of an image while its layers are pulled, and the directory they write
 * to.
 */
export class EarlyWriter {
  readonly pool: WorkerPool;
  readonly target: RootfsTarget;
  /** Null when there are too many entries, or they are malformed. */
  readonly tree: Promise<FileTree | null>;
  /** Resolves when the last batch has been received. */
  readonly batched: Promise<void>;
  readonly #port: MessagePort;
  readonly #sent = new Int32Array(new SharedArrayBuffer(4));
  readonly #disk: string;
  readonly #sameOwner: boolean;
  /** For each layer of the image, its number in the messages of the threads. */
  readonly #rowOf: readonly number[];
  readonly #rows: EarlyRows[] = [];
  /** One promise for each batch that was sent to a thread. */
  readonly #writing: Promise<void>[] = [];

  /**
   * Requires that the parent directory exists: a new one would remain after a failed pull.
   * @throws PullError `unsupported` where files cannot be written early; as `openRootfsTarget` and
   *   `WorkerPool.start`
   */
  static async start(options: EarlyWriterOptions): Promise<EarlyWriter> {
    const { directory, setup } = options;
    if (!requireDirectory(dirname(directory))) throw notWritten('its parent directory does not exist');
    const isAbsent = inspectDirectory(directory, false) === 'absent';
    const target = await openRootfsTarget(directory, isAbsent, false);
    try {
      if (!target.root.isPrivate) throw notWritten('other users may write to it');
      const pool = await startExportPool(Math.max(MIN_THREADS, exportThreads()), setup, options.stages);
      return new EarlyWriter(options, target, pool);
    } catch (error) {
      await discard(target);
      throw error;
    }
  }

  private constructor(options: EarlyWriterOptions, target: RootfsTarget, pool: WorkerPool) {
    const { layers, order, onBatch, maxEntries, directory, sameOwner } = options;
    this.target = target;
    this.pool = pool;
    this.#disk = dirname(directory);
    this.#sameOwner = sameOwner;
    const diffIds = layers.map(({ diffId }) => diffId);
    this.#rowOf = order.map((diffId) => diffIds.indexOf(diffId));
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    this.batched = new Promise((done) => {
      port1.on('close', done);
      port1.on('message', (batch: FileBatch | null) => {
        if (batch === null) done();
        else onBatch(layers[batch.layer]!, batch);
      });
    });
    const task = { task: 'follow-layers', diffIds, order: this.#rowOf, maxEntries } as const;
    this.tree = pool.run({ ...task, port: port2, sent: this.#sent }, [port2]);
  }

  /** Sends more bytes to the thread that reads headers. */
  post(message: IncomingBytes): void {
    this.#port.postMessage(message);
    Atomics.add(this.#sent, 0, 1);
    Atomics.notify(this.#sent, 0);
  }

  /** Has a thread write a batch of files. Rejects as `requireSpace` and the task do. */
  write(layer: EarlyLayer, batch: FileBatch, extents: ExtentRows, written: CounterReader): Promise<void> {
    const writing = this.#write(layer, batch, extents).then(() => {
      // The counter wraps at 4 GiB.
      written.drain();
    });
    this.#writing.push(writing);
    return writing;
  }

  async #write({ diffId, tags }: EarlyLayer, batch: FileBatch, extents: ExtentRows): Promise<void> {
    const { layer, tree, blocks, firstBlock } = batch;
    await requireSpace(this.#disk, contentBytes(tree), true);
    const { written } = await this.pool.run({
      task: 'unpack-files',
      layer: { diffId, tags: tags! },
      extents,
      firstBlock,
      tree,
      blocks,
      directory: this.target.root.shared,
      abilities: assumeGnuTar(this.#sameOwner),
    });
    // Modes, owners and times are not needed any more and are most of the memory.
    const { count, contentStart, text, textEnd } = tree;
    this.#rows.push({ layer, count, contentStart, text, textEnd, written });
  }

  /** Resolves when all files that were sent to a thread are written. @throws as `write` */
  async written(): Promise<void> {
    await this.batched;
    await Promise.all(this.#writing);
  }

  /**
   * Removes files that are not in the tree. Returns, for each row of the tree, 1 if its file is
   * written.
   */
  keep(tree: FileTree): Promise<Uint8Array> {
    const { root } = this.target;
    return this.pool.run({
      task: 'keep-files',
      early: this.#rows,
      tree,
      rowOf: this.#rowOf,
      directory: root.shared,
    });
  }

  /** Stops receiving bytes. The threads and the target remain in use. */
  close(): void {
    this.#port.close();
  }

  /** Ends the threads and removes what they have written, as far as possible. */
  async discard(): Promise<void> {
    this.close();
    await this.pool.destroy();
    await discard(this.target);
  }
}

async function discard(target: RootfsTarget): Promise<void> {
  try {
    await target.discard();
  } finally {
    target.close();
  }
}

function notWritten(why: string): PullError {
  return new PullError('unsupported', `files are not written while layers come: ${why}`);
}

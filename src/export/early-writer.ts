import { dirname } from 'node:path';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { requireSpace } from '../files/disk-space.js';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { CounterReader } from '../pool/counters.js';
import type { BlockTagRows, EarlyRows, FileBatch, IncomingBytes, WorkerSetup } from '../pool/messages.js';
import type { WorkerPool } from '../pool/worker-pool.js';
import { ExtentList, type ExtentRows } from '../store/extents.js';
import { assumeGnuTar } from './abilities.js';
import { BLOCK_BYTES } from './block-tags.js';
import { inspectDirectory, requireDirectory } from './destination-checks.js';
import { exportThreads, startExportPool } from './export-run.js';
import { contentBytes, type FileTree } from './file-tree.js';
import { openRootfsTarget, type RootfsTarget } from './rootfs-target.js';

/** A layer whose files are written while it comes: what of it is on disk, and which files wait for more. */
export class EarlyLayer {
  readonly diffId: Digest;
  /** Its number in the messages of the threads. */
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

  /** What has come so far; undefined when nothing has. */
  get extents(): ExtentRows | undefined {
    return this.#extents.count === 0 ? undefined : this.#extents.toRows();
  }

  /** The next bytes of the tar are on disk. */
  feed(rows: ExtentRows): void {
    this.#extents.append(ExtentList.fromRows(rows));
  }

  /** Files of it are to be written. Batches come in the order of the tar. */
  add(batch: FileBatch): void {
    this.#waiting.push(batch);
  }

  /**
   * Takes the next batch whose bytes are on disk, with the part of the tar that has them.
   * @throws Error when the tar has ended before
   */
  take(): { readonly batch: FileBatch; readonly extents: ExtentRows } | undefined {
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

/** One thread reads headers while layers come, the others write files. */
const MIN_THREADS = 2;

export interface EarlyWriterOptions {
  readonly directory: string;
  readonly setup: WorkerSetup;
  readonly sameOwner: boolean;
  /** Entries of all layers up to which files are written early. */
  readonly maxEntries: number;
  readonly layers: readonly EarlyLayer[];
  /** The image's layers, lowest first. */
  readonly order: readonly Digest[];
  /** Called with each batch of files of a layer, when their headers are read. */
  readonly onBatch: (layer: EarlyLayer, batch: FileBatch) => void;
}

/** Threads that write files of an image while its layers come, and the place that they write them to. */
export class EarlyWriter {
  readonly pool: WorkerPool;
  readonly place: RootfsTarget;
  /** Null when there are too many entries, or they make no file system. */
  readonly tree: Promise<FileTree | null>;
  /** Resolves when the last batch has arrived. */
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
   * The parent directory must exist: a new one would stay behind when the pull fails.
   * @throws PullError `unsupported` where files cannot be written early; as `openRootfsTarget` and `WorkerPool.start`
   */
  static async start(options: EarlyWriterOptions): Promise<EarlyWriter> {
    const { directory, setup } = options;
    if (!requireDirectory(dirname(directory))) throw notWritten('its parent directory does not exist');
    const isAbsent = inspectDirectory(directory, false) === 'absent';
    const place = await openRootfsTarget(directory, isAbsent, false);
    try {
      if (!place.root.isPrivate) throw notWritten('other users may write to it');
      const pool = await startExportPool(Math.max(MIN_THREADS, exportThreads()), setup);
      return new EarlyWriter(options, place, pool);
    } catch (error) {
      await discard(place);
      throw error;
    }
  }

  private constructor(options: EarlyWriterOptions, place: RootfsTarget, pool: WorkerPool) {
    const { layers, order, onBatch, maxEntries, directory, sameOwner } = options;
    this.place = place;
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

  /** Tells the thread that reads headers of more bytes. */
  post(message: IncomingBytes): void {
    this.#port.postMessage(message);
    Atomics.add(this.#sent, 0, 1);
    Atomics.notify(this.#sent, 0);
  }

  /** Has a thread write files. Rejects as `requireSpace` and the task do. */
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
      directory: this.place.root.shared,
      abilities: assumeGnuTar(this.#sameOwner),
    });
    // Modes, owners and times are not needed any more, and would be most of what is kept.
    const { count, contentStart, text, textEnd } = tree;
    this.#rows.push({ layer, count, contentStart, text, textEnd, written });
  }

  /** Resolves when all files that were sent to a thread are written. @throws as `write` */
  async written(): Promise<void> {
    await this.batched;
    await Promise.all(this.#writing);
  }

  /** Removes files that are not in the tree. Returns, by row of the tree, 1 for a file that is already written. */
  keep(tree: FileTree): Promise<Uint8Array> {
    const { root } = this.place;
    return this.pool.run({
      task: 'keep-files',
      early: this.#rows,
      tree,
      rowOf: this.#rowOf,
      directory: root.shared,
    });
  }

  /** No more bytes come. The threads and the place stay. */
  close(): void {
    this.#port.close();
  }

  /** Ends the threads and removes what they have written, as far as it can be. */
  async discard(): Promise<void> {
    this.close();
    await this.pool.destroy();
    await discard(this.place);
  }
}

async function discard(place: RootfsTarget): Promise<void> {
  try {
    await place.discard();
  } finally {
    place.close();
  }
}

function notWritten(why: string): PullError {
  return new PullError('unsupported', `files are not written while layers come: ${why}`);
}

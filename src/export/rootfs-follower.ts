import { dirname, resolve } from 'node:path';
import { MessageChannel } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { guardListener } from '../format/listener.js';
import { CounterReader, createCounters } from '../pool/counters.js';
import type { FollowedLayer, LayerFollower } from '../pool/layer-follower.js';
import type { Abilities, BlockTagRows, ComingBytes, ExtentRows, FileBatch } from '../pool/messages.js';
import type { WorkerPool } from '../pool/worker-pool.js';
import { requireSpace } from '../store/disk-space.js';
import { ExtentList, type ExtentRows as StoreRows } from '../store/extents.js';
import { readLayerRecord } from '../store/layer-record.js';
import { openStore } from '../store/paths.js';
import { abilitiesWithTar } from './abilities.js';
import { BLOCK_BYTES, createBlockTags, createPartRecords } from './block-tags.js';
import { lookAtDirectory, requireDirectory } from './destination.js';
import { type EarlyBatch, EarlyFiles } from './early-files.js';
import { ExportProgress } from './export-progress.js';
import { exportThreads, type FollowedLayers, startExportPool } from './export-run.js';
import { contentBytes, type FileTree } from './file-tree.js';
import type { ExportOptions } from './options.js';
import { type RootfsPlace, takePlace } from './rootfs-place.js';

/** One thread reads headers while layers come, the others write files. */
const MIN_THREADS = 2;

/** A root file system that already has some of its files. */
export interface BegunRootfs extends FollowedLayers {
  readonly place: RootfsPlace;
  readonly tree: FileTree;
  /** Removes files that are not in the tree. Returns, by row of the tree, 1 for a file that is already written. */
  keep(): Promise<Uint8Array>;
}

/** One layer of the image. */
interface Layer {
  readonly diffId: Digest;
  readonly row: number;
  tags: BlockTagRows | undefined;
  /** The part of the tar that is on disk. */
  readonly extents: ExtentList;
  isWhole: boolean;
  isProven: boolean;
  /** Files whose bytes may not be there yet. */
  readonly waiting: EarlyBatch[];
}

/** Everything that is started with the first bytes of a layer. */
interface Work {
  readonly pool: WorkerPool;
  readonly place: RootfsPlace;
  readonly tree: Promise<FileTree>;
  /** Resolves when the last batch has arrived. */
  readonly batched: Promise<void>;
  readonly abilities: Abilities;
  post(message: ComingBytes): void;
  close(): void;
}

/**
 * Writes the files of an image into a directory while its layers are being pulled; `exportRootfs` completes it. Only this user can
 * change that directory, it has no symbolic links, and its subdirectories do not have their modes yet. It gets its name when all layers
 * are proven, as in every export.
 *
 * On any failure (a layer is fetched again, the disk is full) the written files are removed, and `exportRootfs` starts from an empty
 * directory when the image is in the store. It reports the errors.
 */
export class RootfsFollower implements LayerFollower {
  readonly #store: string;
  readonly #directory: string;
  /** See `exportRootfs`. */
  readonly #sameOwner: boolean;
  readonly #layers = new Map<Digest, Layer>();
  /** The image's layers, lowest first. */
  #order: readonly Digest[] = [];
  readonly #counters = createCounters();
  readonly #written = new CounterReader(this.#counters, 'written');
  readonly #records = createPartRecords();
  readonly #files = new EarlyFiles();
  /** One promise for each batch that was sent to a thread. */
  readonly #writing: Promise<void>[] = [];
  #starting: Promise<Work> | undefined;
  #work: Work | undefined;
  #place: RootfsPlace | undefined;
  #disposal: Promise<void> | undefined;

  constructor(options: { readonly store: string; readonly directory: string; readonly sameOwner?: boolean }) {
    this.#store = options.store;
    this.#directory = resolve(options.directory);
    this.#sameOwner = options.sameOwner !== false;
  }

  begin(diffIds: readonly Digest[]): void {
    this.#order = diffIds;
    for (const diffId of new Set(diffIds)) {
      const state = { tags: undefined, extents: new ExtentList(), isWhole: false, isProven: false };
      this.#layers.set(diffId, { diffId, row: this.#layers.size, ...state, waiting: [] });
    }
  }

  follow(diffId: Digest, mostTarBytes: number): FollowedLayer | undefined {
    const layer = this.#layers.get(diffId);
    if (layer === undefined || this.#disposal !== undefined) return undefined;
    // A second attempt: files were written from bytes that turned out to be wrong.
    if (layer.tags !== undefined) {
      this.#giveUp();
      return undefined;
    }
    const tags = createBlockTags(mostTarBytes, this.#records);
    layer.tags = tags;
    return {
      tags,
      feed: (rows) => this.#feed(layer, rows),
      end: (isProven) => {
        layer.isProven = isProven;
        if (isProven) this.#end(layer);
        else this.#giveUp();
      },
    };
  }

  /**
   * Waits until the files of all layers are written; the layers must be in the store. The caller owns the result and closes it.
   * @returns undefined when no files were written
   * @throws the signal's reason; what `onEvent` threw; PullError as `storageError` when the files cannot be removed
   */
  async finish(options: ExportOptions & { readonly directory: string }): Promise<BegunRootfs | undefined> {
    const { diffIds, signal, directory } = options;
    const abort = () => this.#giveUp();
    signal?.addEventListener('abort', abort);
    let thrown: Error | undefined;
    const emit = guardListener(options.onEvent, (error) => {
      thrown = error;
      abort();
    });
    const progress = new ExportProgress(this.#written, emit);
    try {
      if (diffIds.join() !== this.#order.join() || this.#starting === undefined) abort();
      const work = await this.#starting;
      for (const layer of this.#layers.values()) if (!layer.isWhole) this.#feedFromStore(layer);
      const tree = await work?.tree;
      if (tree !== undefined) progress.begin(`rootfs:${directory}`, contentBytes(tree));
      await work?.batched;
      await Promise.all(this.#writing);
      if (work !== undefined && tree !== undefined && this.#disposal === undefined)
        return this.#begun(work, tree);
    } catch {
      abort(); // the export meets the same error and reports it
    } finally {
      progress.close();
      signal?.removeEventListener('abort', abort);
    }
    await this.#disposal;
    signal?.throwIfAborted();
    if (thrown !== undefined) throw thrown;
    return undefined;
  }

  /** Removes the written files, unless `finish` returned them. @throws PullError as `storageError` */
  async discard(): Promise<void> {
    this.#giveUp();
    await this.#disposal;
  }

  #begun({ pool, place, close }: Work, tree: FileTree): BegunRootfs {
    close();
    this.#place = undefined;
    // Nothing is left to clean up.
    this.#disposal = Promise.resolve();
    const layers = [...this.#layers.values()];
    const rowOf = this.#order.map((diffId) => this.#layers.get(diffId)!.row);
    return {
      place,
      tree,
      pool,
      written: this.#written,
      tags: new Map(layers.map(({ diffId, tags }) => [diffId, tags!])),
      proven: new Set(layers.filter(({ isProven }) => isProven).map(({ diffId }) => diffId)),
      keep: () => this.#files.keep(tree, rowOf, place.root),
    };
  }

  #feed(layer: Layer, rows: ExtentRows): void {
    if (this.#disposal !== undefined) return;
    layer.extents.append(ExtentList.fromRows(rows as StoreRows));
    this.#post(layer, rows);
    this.#write(layer);
    if (this.#starting !== undefined) return;
    this.#starting = this.#start();
    this.#starting.catch(() => this.#giveUp());
  }

  #end(layer: Layer): void {
    layer.isWhole = true;
    this.#work?.post({ layer: layer.row });
    this.#write(layer);
  }

  /** Reads a layer from the store that this pull did not fetch. The export proves it. */
  #feedFromStore(layer: Layer): void {
    const record = readLayerRecord(openStore(this.#store), layer.diffId);
    if (record === undefined || layer.tags !== undefined) {
      this.#giveUp();
      return;
    }
    layer.tags = createBlockTags(record.extents.lengthBytes, this.#records);
    this.#feed(layer, record.extents.toRows());
    this.#end(layer);
  }

  /** The parent directory must exist: a new one would stay behind when the pull fails. */
  async #start(): Promise<Work> {
    const paths = openStore(this.#store);
    if (!requireDirectory(dirname(this.#directory))) throw notFollowed('its parent directory does not exist');
    const isAbsent = lookAtDirectory(this.#directory, false) === 'absent';
    const place = await takePlace(this.#directory, isAbsent, false);
    this.#place = place;
    if (!place.root.isPrivate) throw notFollowed('other users may write to it');
    const setup = { storeRoot: paths.root, counters: this.#counters };
    const pool = await startExportPool(Math.max(MIN_THREADS, exportThreads()), setup);
    this.#work = this.#follow(pool, place);
    for (const layer of this.#layers.values()) {
      if (layer.tags === undefined && readLayerRecord(paths, layer.diffId) !== undefined) {
        this.#feedFromStore(layer);
        continue;
      }
      if (layer.extents.count > 0) this.#post(layer, layer.extents.toRows());
      if (layer.isWhole) this.#work.post({ layer: layer.row });
    }
    return this.#work;
  }

  /** Starts a thread that reads the headers of all layers as they come. */
  #follow(pool: WorkerPool, place: RootfsPlace): Work {
    const { port1, port2 } = new MessageChannel();
    const sent = new Int32Array(new SharedArrayBuffer(4));
    const layers = [...this.#layers.values()];
    const batched = new Promise<void>((done) => {
      port1.on('close', done);
      port1.on('message', (batch: FileBatch | null) => {
        if (batch === null) return done();
        const layer = layers[batch.layer]!;
        layer.waiting.push(this.#files.add(batch));
        this.#write(layer);
      });
    });
    const diffIds = layers.map(({ diffId }) => diffId);
    const order = this.#order.map((diffId) => this.#layers.get(diffId)!.row);
    const tree = pool.run({ task: 'follow-layers', diffIds, order, port: port2, sent }, [port2]);
    tree.catch(() => this.#giveUp());
    return {
      pool,
      place,
      tree,
      batched,
      abilities: abilitiesWithTar(this.#sameOwner),
      post: (message) => {
        port1.postMessage(message);
        Atomics.add(sent, 0, 1);
        Atomics.notify(sent, 0);
      },
      close: () => port1.close(),
    };
  }

  #post({ row, tags }: Layer, extents: ExtentRows): void {
    this.#work?.post({ layer: row, bytes: { tags: tags!, extents } });
  }

  /** Sends batches to threads once their bytes are on disk. */
  #write(layer: Layer): void {
    const { extents, waiting, isWhole } = layer;
    for (let [batch] = waiting; batch !== undefined; [batch] = waiting) {
      const { firstBlock, endBlock } = batch;
      const isThere = extents.lengthBytes >= endBlock * BLOCK_BYTES;
      if (!isThere && !isWhole) return;
      if (batch.endBytes > extents.lengthBytes) this.#giveUp();
      if (this.#disposal !== undefined) return;
      waiting.shift();
      const end = Math.min(extents.lengthBytes, endBlock * BLOCK_BYTES);
      const part = extents.slice(firstBlock * BLOCK_BYTES, end);
      const writing = this.#writeBatch(layer, batch, part);
      this.#writing.push(writing);
      writing.catch(() => this.#giveUp());
    }
  }

  async #writeBatch({ diffId, tags }: Layer, batch: EarlyBatch, part: ExtentList): Promise<void> {
    const { pool, place, abilities } = this.#work!;
    const { tree, blocks, firstBlock } = batch;
    await requireSpace(dirname(this.#directory), contentBytes(tree), true);
    const { written } = await pool.run({
      task: 'unpack-files',
      layer: { diffId, tags: tags! },
      extents: part.toRows(),
      firstBlock,
      tree,
      blocks,
      directory: place.root.shared,
      abilities,
    });
    batch.written = written;
    // The counter wraps at 4 GiB.
    this.#written.drain();
  }

  /** Ends all threads and removes the written files. */
  #giveUp(): void {
    if (this.#disposal !== undefined) return;
    this.#disposal = this.#dispose();
    this.#disposal.catch(() => {}); // `finish` and `discard` throw it; the pull goes on until then
  }

  async #dispose(): Promise<void> {
    await this.#starting?.catch(() => {}); // the reason for this, or a result of it
    this.#work?.close();
    await this.#work?.pool.destroy();
    const place = this.#place;
    this.#place = undefined;
    try {
      await place?.discard();
    } finally {
      place?.close();
    }
  }
}

function notFollowed(why: string): PullError {
  return new PullError('unsupported', `files are not written while layers come: ${why}`);
}

import { dirname, resolve } from 'node:path';
import { spareBytes } from '../files/disk-space.js';
import { onAbort, throwIfAborted } from '../format/abort.js';
import type { Digest } from '../format/digest.js';
import { guardListener } from '../format/error.js';
import type { ExpectedBytes, FollowedLayer, LayerFollower } from '../pool/messages.js';
import { CounterReader, createCounters } from '../pool/shared-memory.js';
import type { StageRecorder } from '../pool/stages.js';
import type { ExtentRows } from '../store/extents.js';
import { readLayerRecord } from '../store/layer-record.js';
import { openStore } from '../store/paths.js';
import { createBlockTags, createPartRecords } from './block-tags.js';
import { EarlyLayer, EarlyWriter } from './early-writer.js';
import { type ExportOptions, ExportProgress, type FollowedLayers, INTERRUPTED } from './export-run.js';
import { contentBytes, type FileTree } from './file-tree.js';
import type { RootfsTarget } from './rootfs-target.js';

/** Limit of the entries of all layers for files to be written early; SECURITY.md has the reason. */
const MAX_EARLY_ENTRIES = 2 ** 16;

/** A root file system with some of its files written. */
export interface BegunRootfs extends FollowedLayers {
  readonly target: RootfsTarget;
  /** Null when it has yet to be made from the layers. */
  readonly tree: FileTree | null;
  /**
   * Removes files that are not in the tree. Returns, for each row of the tree, 1 if its file is
   * written.
   */
  keep(tree: FileTree): Promise<Uint8Array>;
}

export interface RootfsFollowerOptions {
  readonly store: string;
  readonly directory: string;
  /** See `exportRootfs`. */
  readonly sameOwner?: boolean;
  /** Limit of the entries of all layers for files to be written during the pull; default 65,536. */
  readonly maxEntries?: number;
  /** Records the stages of what is written during the pull. */
  readonly stages?: StageRecorder;
}

/**
 * Writes the files of an image into a directory while its layers are pulled; `exportRootfs`
 * completes it. Until then only this user can change the directory, it has no symbolic links, and
 * its subdirectories do not have their final modes. As in every export, it gets its name when all
 * layers are proven.
 *
 * On any failure (a layer is fetched again, the disk is full) the pull goes on and the written
 * files are removed. `exportRootfs` then starts with an empty directory, meets the same error and
 * reports it.
 */
export class RootfsFollower implements LayerFollower {
  readonly #options: RootfsFollowerOptions;
  readonly #directory: string;
  readonly #layers = new Map<Digest, EarlyLayer>();
  /** The image's layers, lowest first. */
  #order: readonly Digest[] = [];
  readonly #counters = createCounters();
  readonly #written = new CounterReader(this.#counters, 'written');
  readonly #records = createPartRecords();
  /** Space on the disk for early files, beyond what the pull needs. */
  #spareBytes = Number.POSITIVE_INFINITY;
  #starting: Promise<EarlyWriter> | undefined;
  #writer: EarlyWriter | undefined;
  #disposal: Promise<void> | undefined;

  constructor(options: RootfsFollowerOptions) {
    this.#options = options;
    this.#directory = resolve(options.directory);
  }

  begin(diffIds: readonly Digest[]): void {
    this.#order = diffIds;
    for (const diffId of new Set(diffIds))
      this.#layers.set(diffId, new EarlyLayer(diffId, this.#layers.size));
  }

  /** Gives up when the disk may not have room for the files beside the store. */
  async expect({ storeBytes, tarBytes }: ExpectedBytes): Promise<void> {
    try {
      const { root } = openStore(this.#options.store);
      this.#spareBytes = await spareBytes(dirname(this.#directory), root, storeBytes);
      if (tarBytes > this.#spareBytes) this.#giveUp();
    } catch {
      this.#giveUp();
    }
  }

  async makeRoom(): Promise<void> {
    this.#giveUp();
    await this.#disposal?.catch(() => {}); // `finish` and `discard` throw it
  }

  follow(diffId: Digest, maxTarBytes: number): FollowedLayer | undefined {
    const layer = this.#layers.get(diffId);
    if (layer === undefined || this.#disposal !== undefined) return undefined;
    // On a second attempt, files have been written from wrong bytes.
    if (layer.tags !== undefined) {
      this.#giveUp();
      return undefined;
    }
    layer.tags = createBlockTags(maxTarBytes, this.#records);
    return {
      tags: layer.tags,
      feed: (rows) => this.#feed(layer, rows),
      end: (isProven) => {
        layer.isProven = isProven;
        if (isProven) this.#end(layer);
        else this.#giveUp();
      },
    };
  }

  /**
   * Waits until the files of all layers are written; the layers must be in the store. The caller
   * closes the result.
   * @returns undefined when no files were written
   * @throws PullError as `abortError`; what `onEvent` threw; PullError as `storageError` when the files
   *   cannot be removed
   */
  async finish(options: ExportOptions & { readonly directory: string }): Promise<BegunRootfs | undefined> {
    const { diffIds, signal, directory } = options;
    const abort = () => this.#giveUp();
    const removeAbort = onAbort(signal, abort);
    let thrown: Error | undefined;
    const emit = guardListener(options.onEvent, (error) => {
      thrown = error;
      abort();
    });
    const progress = new ExportProgress(this.#written, emit);
    try {
      if (diffIds.join() !== this.#order.join() || this.#starting === undefined) abort();
      const writer = await this.#starting;
      for (const layer of this.#layers.values()) if (!layer.isWhole) this.#feedFromStore(layer);
      const tree = (await writer?.tree) ?? null;
      if (tree !== null) progress.begin(`rootfs:${directory}`, contentBytes(tree));
      await writer?.written();
      if (writer !== undefined && this.#disposal === undefined) return this.#begun(writer, tree);
    } catch {
      abort(); // the export meets the same error and reports it
    } finally {
      progress.close();
      removeAbort();
    }
    await this.#disposal;
    throwIfAborted(signal, INTERRUPTED);
    if (thrown !== undefined) throw thrown;
    return undefined;
  }

  /** Removes the written files, unless `finish` returned them.
   * @throws PullError as `storageError` */
  async discard(): Promise<void> {
    this.#giveUp();
    await this.#disposal;
  }

  #begun(writer: EarlyWriter, tree: FileTree | null): BegunRootfs {
    writer.close();
    // Nothing is left to clean up.
    this.#disposal = Promise.resolve();
    const layers = [...this.#layers.values()];
    return {
      target: writer.target,
      tree,
      pool: writer.pool,
      written: this.#written,
      tags: new Map(layers.map(({ diffId, tags }) => [diffId, tags!])),
      proven: new Set(layers.filter(({ isProven }) => isProven).map(({ diffId }) => diffId)),
      keep: (known) => writer.keep(known),
    };
  }

  #feed(layer: EarlyLayer, rows: ExtentRows): void {
    if (this.#disposal !== undefined) return;
    layer.feed(rows);
    this.#writer?.post({ layer: layer.row, bytes: { tags: layer.tags!, extents: rows } });
    this.#write(layer);
    this.#starting ??= this.#start().catch((error) => {
      this.#giveUp();
      throw error;
    });
  }

  #end(layer: EarlyLayer): void {
    layer.isWhole = true;
    this.#writer?.post({ layer: layer.row });
    this.#write(layer);
  }

  /** Uses a cached layer, which this pull does not fetch. The export proves it. */
  #feedFromStore(layer: EarlyLayer): void {
    const record = readLayerRecord(openStore(this.#options.store), layer.diffId);
    if (record === undefined || layer.tags !== undefined) {
      this.#giveUp();
      return;
    }
    layer.tags = createBlockTags(record.extents.lengthBytes, this.#records);
    this.#feed(layer, record.extents.toRows());
    this.#end(layer);
  }

  async #start(): Promise<EarlyWriter> {
    const { store, sameOwner = true, maxEntries = MAX_EARLY_ENTRIES, stages } = this.#options;
    const paths = openStore(store);
    const layers = [...this.#layers.values()];
    const writer = await EarlyWriter.start({
      directory: this.#directory,
      setup: { storeRoot: paths.root, counters: this.#counters },
      sameOwner,
      maxEntries,
      stages,
      layers,
      order: this.#order,
      onBatch: (layer, batch) => {
        layer.add(batch);
        this.#write(layer);
      },
    });
    writer.tree.catch(() => this.#giveUp());
    this.#writer = writer;
    for (const layer of layers) {
      const { row, tags, extents, isWhole } = layer;
      if (extents !== undefined) writer.post({ layer: row, bytes: { tags: tags!, extents } });
      if (isWhole) writer.post({ layer: row });
      if (tags === undefined && readLayerRecord(paths, layer.diffId) !== undefined)
        this.#feedFromStore(layer);
    }
    return writer;
  }

  /** Sends the files whose bytes are on disk to threads. */
  #write(layer: EarlyLayer): void {
    const writer = this.#writer;
    if (writer === undefined || this.#disposal !== undefined) return;
    try {
      for (let next = layer.nextBatch(); next !== undefined; next = layer.nextBatch()) {
        this.#spareBytes -= contentBytes(next.batch.tree);
        if (this.#spareBytes < 0) this.#giveUp();
        else writer.write(layer, next.batch, next.extents, this.#written).catch(() => this.#giveUp());
      }
    } catch {
      this.#giveUp();
    }
  }

  /** Ends all threads and removes the written files. */
  #giveUp(): void {
    if (this.#disposal !== undefined) return;
    this.#disposal = this.#dispose();
    this.#disposal.catch(() => {}); // `finish` and `discard` throw it; the pull goes on until then
  }

  async #dispose(): Promise<void> {
    await this.#starting?.catch(() => {}); // the cause of this disposal, or its effect
    await this.#writer?.discard();
  }
}

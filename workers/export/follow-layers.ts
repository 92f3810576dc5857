import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { BLOCK_BYTES, PartTags } from '../../src/export/block-tags.js';
import { NO_ROW } from '../../src/export/file-tree.js';
import { flatten } from '../../src/export/flatten.js';
import {
  ExtentReader,
  HeaderComparison,
  type HeaderLayer,
  HeaderSource,
  type TarReader,
} from '../../src/export/layer-source.js';
import { type Inode, partsOf, RowWriter } from '../../src/export/tree-nodes.js';
import type { Digest } from '../../src/format/digest.js';
import { type ErrorCode, PullError } from '../../src/format/error.js';
import { isZeroBlock, unreadableTar } from '../../src/format/tar-fields.js';
import type {
  BlockTagRows,
  FileBatch,
  FollowLayersTask,
  IncomingBytes,
  TreeRows,
} from '../../src/pool/messages.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths } from '../context.js';

/** Limits of one batch, as for a task of `exportRootfs`: all threads end at about the same time. */
const BATCH_BYTES = 16 * 2 ** 20;
const BATCH_ROWS = 500;

/**
 * Limits relative to the entries: bytes of text for each, and how many there are for each implied
 * directory.
 */
const TEXT_BYTES_AN_ENTRY = 128;
const ENTRIES_AN_IMPLIED = 8;

/** Error codes of layers that are malformed or exceed the limits. */
const MALFORMED_CODES: readonly ErrorCode[] = ['metadata-malformed', 'unsupported'];

/**
 * Flattens layers that are still being pulled. Returns null when they exceed the limits or are
 * malformed, which the export then finds again. Blocks its thread while it waits for more bytes;
 * the thread has no other task and can be terminated at any time.
 */
export function followLayers({ diffIds, order, maxEntries, port, sent }: FollowLayersTask): TreeRows | null {
  const incoming = new IncomingLayers(port, sent, diffIds.length);
  const packs = new PackReader(paths);
  const layers = diffIds.map((diffId, row) => new IncomingLayer(incoming, packs, row, diffId));
  const batches = new Batches((batch) => port.postMessage(batch));
  const comparison = new HeaderComparison((layer, block) =>
    batches.addBlock(diffIds.indexOf(layer.diffId), block),
  );
  const sources = order.map((row) => new CompleteSource(layers[row]!, comparison));
  const isFirst = order.map((row, at) => order.indexOf(row) === at);
  const limits = {
    intoFiles: true,
    maxEntries,
    maxTextBytes: maxEntries * TEXT_BYTES_AN_ENTRY,
    maxImplied: maxEntries / ENTRIES_AN_IMPLIED,
  };
  const treeOf = (): TreeRows | null => {
    try {
      const tree = flatten(sources, limits, (at, path, inode) => {
        if (isFirst[at] === true) batches.addFile(order[at]!, path, inode);
      });
      for (const source of sources) source.requireEnd();
      return tree;
    } catch (error) {
      if (error instanceof PullError && MALFORMED_CODES.includes(error.code)) return null;
      throw error;
    }
  };
  try {
    const tree = treeOf();
    comparison.finish();
    batches.flush();
    port.postMessage(null);
    return tree;
  } finally {
    packs.close();
    port.close();
  }
}

/** The layers that are being pulled, as far as they have been announced. */
class IncomingLayers {
  readonly extents: readonly ExtentList[];
  readonly #port: MessagePort;
  readonly #sent: Int32Array<SharedArrayBuffer>;
  readonly #tags = new Map<number, BlockTagRows>();
  readonly #complete = new Set<number>();

  constructor(port: MessagePort, sent: Int32Array<SharedArrayBuffer>, layers: number) {
    this.#port = port;
    this.#sent = sent;
    this.extents = Array.from({ length: layers }, () => new ExtentList());
  }

  isComplete(layer: number): boolean {
    return this.#complete.has(layer);
  }

  /** @throws Error before the first bytes of the layer */
  tagsOf(layer: number): BlockTagRows {
    const tags = this.#tags.get(layer);
    if (tags === undefined) throw new Error('nothing of this layer has come');
    return tags;
  }

  /** Waits for the next message and applies it. */
  receive(): void {
    for (;;) {
      const sent = Atomics.load(this.#sent, 0);
      const received = receiveMessageOnPort(this.#port) as { readonly message: IncomingBytes } | undefined;
      if (received === undefined) {
        const started = threadClock.start();
        Atomics.wait(this.#sent, 0, sent);
        threadClock.endWait('metadata', started);
        continue;
      }
      const { layer, bytes } = received.message;
      if (bytes === undefined) this.#complete.add(layer);
      else {
        this.#tags.set(layer, bytes.tags);
        this.extents[layer]!.append(ExtentList.fromRows(bytes.extents));
      }
      return;
    }
  }
}

/** The tar of a layer that is still being pulled. */
class IncomingLayer implements HeaderLayer, TarReader {
  readonly diffId: Digest;
  /** The tasks that write files compare whole blocks. */
  readonly whole = undefined;
  readonly #incoming: IncomingLayers;
  readonly #row: number;
  readonly #extents: ExtentReader;
  #end = 0;

  constructor(incoming: IncomingLayers, packs: PackReader, row: number, diffId: Digest) {
    this.diffId = diffId;
    this.#incoming = incoming;
    this.#row = row;
    this.#extents = new ExtentReader(packs, incoming.extents[row]!);
  }

  get reader(): TarReader {
    return this;
  }

  get partTags(): PartTags {
    return new PartTags(this.#incoming.tagsOf(this.#row));
  }

  /** Infinite while the tar is incomplete and may have more bytes than were read. */
  get lengthBytes(): number {
    while (!this.#isComplete && this.#extents.lengthBytes <= this.#end) this.#incoming.receive();
    return this.#isComplete ? this.#extents.lengthBytes : Number.POSITIVE_INFINITY;
  }

  reach(end: number): number {
    this.#end = end;
    while (!this.#isComplete && this.#extents.lengthBytes < end) this.#incoming.receive();
    if (this.#extents.lengthBytes < end) throw unreadableTar('it ends inside an entry');
    return this.#extents.lengthBytes;
  }

  readInto(target: Buffer, position: number, lengthBytes: number): void {
    this.#extents.readInto(target, position, lengthBytes);
  }

  get #isComplete(): boolean {
    return this.#incoming.isComplete(this.#row);
  }
}

/**
 * Requires that a tar ends in zeros or is empty. Other readers accept a tar without them. Here its
 * length was unknown when its last entry was read, so that entry may be truncated.
 */
class CompleteSource extends HeaderSource {
  #endsInZeros = false;

  override read(position: number, lengthBytes: number): Buffer {
    const bytes = super.read(position, lengthBytes);
    this.#endsInZeros = bytes[0] === 0 && isZeroBlock(bytes);
    return bytes;
  }

  requireEnd(): void {
    if (!this.#endsInZeros && this.lengthBytes > 0) throw unreadableTar('it has no end');
  }
}

/** Collects files into batches, each of one layer. */
class Batches {
  readonly #post: (batch: FileBatch) => void;
  #layer = 0;
  #files: { readonly path: string; readonly inode: Inode }[] = [];
  #blocks: number[] = [];
  #contentBytes = 0;
  #textBytes = 0;

  constructor(post: (batch: FileBatch) => void) {
    this.#post = post;
  }

  addBlock(layer: number, block: number): void {
    this.#switchTo(layer);
    this.#blocks.push(block);
    if (this.#blocks.length === BATCH_ROWS) this.flush();
  }

  /** Adds a file, unless it is empty or needs GNU tar. */
  addFile(layer: number, path: string, inode: Inode): void {
    const own = partsOf(path).join('/');
    if (inode.sizeBytes === 0 || inode.xattrRecords !== '' || own === '' || path.includes('..')) return;
    this.#switchTo(layer);
    this.#files.push({ path: own, inode });
    this.#contentBytes += inode.sizeBytes;
    this.#textBytes += own.length;
    if (this.#files.length === BATCH_ROWS || this.#contentBytes >= BATCH_BYTES) this.flush();
  }

  flush(): void {
    if (this.#files.length === 0 && this.#blocks.length === 0) return;
    const writer = new RowWriter(this.#files.length, this.#textBytes);
    for (const { path, inode } of this.#files) {
      writer.add({ ...inode, row: -1 }, path, NO_ROW);
    }
    this.#post({ layer: this.#layer, tree: writer.finish(), blocks: this.#blocks, ...this.#bounds() });
    this.#files = [];
    this.#blocks = [];
    this.#contentBytes = 0;
    this.#textBytes = 0;
  }

  /** Returns the part of the layer that is read to write the batch. */
  #bounds(): Pick<FileBatch, 'firstBlock' | 'endBlock' | 'endBytes'> {
    const first = this.#files.at(0)?.inode.contentStart ?? Number.POSITIVE_INFINITY;
    const last = this.#files.at(-1)?.inode;
    const endBytes = last === undefined ? 0 : last.contentStart + last.sizeBytes;
    return {
      firstBlock: Math.min(Math.floor(first / BLOCK_BYTES), ...this.#blocks),
      endBlock: Math.max(Math.ceil(endBytes / BLOCK_BYTES), ...this.#blocks.map((block) => block + 1)),
      endBytes,
    };
  }

  #switchTo(layer: number): void {
    if (layer !== this.#layer) this.flush();
    this.#layer = layer;
  }
}

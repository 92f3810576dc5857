import type { Digest } from '../format/digest.js';
import type { TarSource } from '../format/tar-entries.js';
import type { ExtentList } from '../store/extents.js';
import type { PackReader } from '../store/pack-reader.js';
import { BLOCK_BYTES, BlockParts, type BlockTags, changedLayer, type PartTags } from './block-tags.js';

/**
 * Reads a layer's tar at any position from its extents, to which more can be appended. Fastest in
 * ascending order.
 */
export class ExtentReader {
  readonly #packs: PackReader;
  readonly #extents: ExtentList;
  /** Row of the extent that was read last. */
  #row = 0;

  constructor(packs: PackReader, extents: ExtentList) {
    this.#packs = packs;
    this.#extents = extents;
  }

  get lengthBytes(): number {
    return this.#extents.lengthBytes;
  }

  /** Returns the end of what can be read. */
  reach(): number {
    return this.#extents.lengthBytes;
  }

  /** Reads `lengthBytes` bytes at `position` into the start of `target`.
   * @throws PullError as `PackReader.readInto` */
  readInto(target: Buffer, position: number, lengthBytes: number): void {
    for (let done = 0; done < lengthBytes; ) {
      const row = this.#rowAt(position + done);
      const skipped = position + done - this.#extents.startAt(row);
      const part = Math.min(lengthBytes - done, this.#extents.lengthAt(row) - skipped);
      this.#packs.readInto(
        target,
        done,
        this.#extents.packAt(row),
        this.#extents.offsetAt(row) + skipped,
        part,
      );
      done += part;
    }
  }

  /**
   * Returns the extent with the byte at `position`: tries the last one and the next, then searches.
   */
  #rowAt(position: number): number {
    const { count } = this.#extents;
    for (let row = this.#row; row < Math.min(count, this.#row + 2); row++) {
      if (this.#holds(row, position)) {
        this.#row = row;
        return row;
      }
    }
    this.#row = this.#extents.rowAt(position);
    return this.#row;
  }

  #holds(row: number, position: number): boolean {
    const start = this.#extents.startAt(row);
    return position >= start && position < start + this.#extents.lengthAt(row);
  }
}

/**
 * Blocks in the cache of a thread: 2 MiB, the size of a core's cache. One block suffices for files
 * in the order of a layer, but a tar alternates between layers.
 */
const CACHED_BLOCKS = 8;

interface Slot {
  /** Layer of the block; undefined for an empty slot. */
  source: LayerSource | undefined;
  block: number;
  readonly bytes: Buffer;
}

/** Caches the blocks that a thread read last. */
export class BlockCache {
  /** Least recently used first. */
  readonly #slots: Slot[] = [];

  /** Returns the slot of a block, or undefined. */
  find(source: LayerSource, block: number): Slot | undefined {
    const at = this.#slots.findLastIndex((slot) => slot.block === block && slot.source === source);
    return at < 0 ? undefined : this.#use(at);
  }

  /** Returns a slot for another block: a new one, or the least recently used. */
  allocate(): Slot {
    if (this.#slots.length === CACHED_BLOCKS) return this.#use(0);
    const slot = { source: undefined, block: 0, bytes: Buffer.allocUnsafeSlow(BLOCK_BYTES) };
    this.#slots.push(slot);
    return slot;
  }

  #use(at: number): Slot {
    const [slot] = this.#slots.splice(at, 1);
    this.#slots.push(slot!);
    return slot!;
  }
}

/**
 * Reads a layer's tar at any position, a block at a time, and compares every block with what other
 * threads of this export read of it, in particular the one that hashes the layer. Fastest in
 * ascending order.
 */
export class LayerSource {
  readonly #diffId: Digest;
  readonly #lengthBytes: number;
  readonly #reader: ExtentReader;
  readonly #tags: BlockTags;
  readonly #partTags: PartTags | undefined;
  readonly #firstBlock: number;
  readonly #cache: BlockCache;
  #last: Slot | undefined;

  constructor(
    cache: BlockCache,
    layer: {
      readonly diffId: Digest;
      readonly reader: ExtentReader;
      readonly tags: BlockTags;
      /** Given if this thread has to compare the parts that were read before. */
      readonly partTags?: PartTags;
      /** First block of the reader, if it has only a part of the layer. */
      readonly firstBlock?: number;
    },
  ) {
    this.#cache = cache;
    this.#diffId = layer.diffId;
    this.#reader = layer.reader;
    this.#tags = layer.tags;
    this.#partTags = layer.partTags;
    this.#firstBlock = layer.firstBlock ?? 0;
    this.#lengthBytes = layer.reader.lengthBytes + this.#firstBlock * BLOCK_BYTES;
  }

  /**
   * Returns up to `lengthBytes` bytes at `position`, but not beyond the end of their block. Valid
   * until the next call for any layer.
   * @throws PullError `digest-mismatch` when another read of the same block got other bytes, else
   *   as `PackReader.readInto`
   */
  part(position: number, lengthBytes: number): Buffer {
    const block = Math.floor(position / BLOCK_BYTES);
    const from = position - block * BLOCK_BYTES;
    const { bytes } = this.#blockAt(block);
    return bytes.subarray(from, Math.min(from + lengthBytes, BLOCK_BYTES));
  }

  /** Returns a whole block, with the lifetime of `part`. The last block may be shorter. */
  wholeBlock(block: number): Buffer {
    const start = block * BLOCK_BYTES;
    return this.part(start, Math.min(BLOCK_BYTES, this.#lengthBytes - start));
  }

  #blockAt(block: number): Slot {
    const last = this.#last;
    if (last?.source === this && last.block === block) return last;
    this.#last = this.#cache.find(this, block) ?? this.#readBlock(block);
    return this.#last;
  }

  #readBlock(block: number): Slot {
    const slot = this.#cache.allocate();
    slot.source = undefined;
    const start = block * BLOCK_BYTES;
    const lengthBytes = Math.min(BLOCK_BYTES, this.#lengthBytes - start);
    this.#reader.readInto(slot.bytes, start - this.#firstBlock * BLOCK_BYTES, lengthBytes);
    const bytes = lengthBytes === BLOCK_BYTES ? slot.bytes : slot.bytes.subarray(0, lengthBytes);
    if (!this.#tags.agrees(block, bytes)) throw changedLayer(this.#diffId);
    if (this.#partTags?.agrees(block, bytes) === false) throw changedLayer(this.#diffId);
    slot.source = this;
    slot.block = block;
    return slot;
  }
}

/** Covers a header with most extended headers, and often a small content and the next header. */
const WINDOW_BYTES = 4096;

/** Reads a layer's tar, which may still be growing. */
export interface TarReader extends Pick<ExtentReader, 'lengthBytes' | 'readInto'> {
  /** Returns the end of what can be read now; waits until that is at least `end`. */
  reach(end: number): number;
}

/** A layer whose headers are read, with the tags to compare them with. */
export interface HeaderLayer {
  readonly diffId: Digest;
  readonly reader: TarReader;
  readonly partTags: PartTags;
  /** To compare whole blocks; undefined where another task does so later. */
  readonly whole: { readonly tags: BlockTags; readonly source: LayerSource } | undefined;
}

/**
 * Reads the headers of a layer's tar, at ascending positions. What was read is compared with what
 * the thread that hashes the layer reads.
 */
export class HeaderSource implements TarSource {
  readonly diffId: Digest;
  readonly #layer: HeaderLayer;
  readonly #comparison: HeaderComparison;
  #window = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  #windowStart = 0;
  #windowEnd = 0;

  constructor(layer: HeaderLayer, comparison: HeaderComparison) {
    this.#layer = layer;
    this.#comparison = comparison;
    this.diffId = layer.diffId;
  }

  get lengthBytes(): number {
    return this.#layer.reader.lengthBytes;
  }

  /**
   * @throws PullError `digest-mismatch` when different bytes were hashed before; as
   *   `PackReader.readInto`
   */
  read(position: number, lengthBytes: number): Buffer {
    if (position < this.#windowStart || position + lengthBytes > this.#windowEnd) {
      if (lengthBytes > this.#window.length) this.#window = Buffer.allocUnsafeSlow(lengthBytes);
      this.#windowStart = position;
      const reach = this.#layer.reader.reach(position + lengthBytes);
      this.#windowEnd = Math.min(reach, position + this.#window.length);
      this.#layer.reader.readInto(this.#window, position, this.#windowEnd - position);
    }
    const from = position - this.#windowStart;
    const bytes = this.#window.subarray(from, from + lengthBytes);
    this.#comparison.add(this.#layer, position, bytes);
    return bytes;
  }
}

/**
 * Compares everything that the header sources of one thread return with what is hashed, a block at
 * a time. If the block has not been hashed yet, the hashing thread finds the tag of the parts read
 * here. If it has, the whole block is read here and compared with its tag. Both threads store their
 * own tag before they look for the other one, so at least one of them sees both.
 */
export class HeaderComparison {
  readonly #parts = new BlockParts();
  readonly #onRecorded: (layer: HeaderLayer, block: number) => void;
  #layer: HeaderLayer | undefined;
  #block = 0;

  /** `onRecorded` is called with each block that another task is to compare as a whole. */
  constructor(onRecorded: (layer: HeaderLayer, block: number) => void = () => {}) {
    this.#onRecorded = onRecorded;
  }

  /** Adds the bytes read at `position` of a layer's tar. @throws PullError as `finish` */
  add(layer: HeaderLayer, position: number, bytes: Buffer): void {
    for (let done = 0; done < bytes.length; ) {
      const block = Math.floor((position + done) / BLOCK_BYTES);
      if (layer !== this.#layer || block !== this.#block) this.finish();
      this.#layer = layer;
      this.#block = block;
      const start = position + done - block * BLOCK_BYTES;
      const lengthBytes = Math.min(bytes.length - done, BLOCK_BYTES - start);
      this.#parts.add(start, bytes.subarray(done, done + lengthBytes));
      done += lengthBytes;
    }
  }

  /**
   * Ends the current block; to be called after the last read.
   * @throws PullError `digest-mismatch` when different bytes were hashed; as `PackReader.readInto`
   */
  finish(): void {
    const layer = this.#layer;
    if (layer === undefined) return;
    this.#layer = undefined;
    const { partTags, whole, diffId } = layer;
    const isRecorded = partTags.record(this.#block, this.#parts);
    if (whole === undefined) {
      // A layer that occurs twice has the tag of its first reading.
      if (!isRecorded && !partTags.hasRecorded(this.#block, this.#parts)) throw changedLayer(diffId);
      this.#onRecorded(layer, this.#block);
    } else if (!isRecorded || whole.tags.has(this.#block)) {
      if (!this.#parts.areIn(whole.source.wholeBlock(this.#block))) throw changedLayer(diffId);
    }
    this.#parts.clear();
  }
}

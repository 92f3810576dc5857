import type { Digest } from '../format/digest.js';
import type { TarSource } from '../format/tar-entries.js';
import type { ExtentList } from '../store/extents.js';
import type { PackReader } from '../store/pack-reader.js';
import { BLOCK_BYTES, type BlockTags, changedLayer } from './block-tags.js';

/**
 * Blocks that a thread keeps: 2 MiB, what a core's cache holds. One would do for files in the order of a layer; a tar goes from
 * layer to layer.
 */
const KEPT_BLOCKS = 8;

interface Slot {
  /** The layer whose block it has; undefined while it has none. */
  source: LayerSource | undefined;
  block: number;
  readonly bytes: Buffer;
}

/** Memory for the blocks that a thread read last. */
export class BlockCache {
  /** In order of last use, the longest unused first. */
  readonly #slots: Slot[] = [];

  /** The slot that has a block, or undefined. */
  find(source: LayerSource, block: number): Slot | undefined {
    const at = this.#slots.findLastIndex((slot) => slot.block === block && slot.source === source);
    return at < 0 ? undefined : this.#use(at);
  }

  /** A slot for another block: a new one, or the one that has not been used for longest. */
  take(): Slot {
    if (this.#slots.length === KEPT_BLOCKS) return this.#use(0);
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
 * A layer's tar, read at any position from its extents, a whole block at a time. Every block is compared with what other threads
 * of this export read of it: those that hash the layer, above all. Fastest where positions ascend.
 */
export class LayerSource implements TarSource {
  readonly lengthBytes: number;
  readonly diffId: Digest;
  readonly #packs: PackReader;
  readonly #extents: ExtentList;
  readonly #tags: BlockTags;
  readonly #cache: BlockCache;
  /** The extent that was read last. */
  #row = 0;
  #last: Slot | undefined;

  constructor(
    packs: PackReader,
    cache: BlockCache,
    layer: { readonly diffId: Digest; readonly extents: ExtentList; readonly tags: BlockTags },
  ) {
    this.#packs = packs;
    this.#cache = cache;
    this.diffId = layer.diffId;
    this.#extents = layer.extents;
    this.#tags = layer.tags;
    this.lengthBytes = layer.extents.lengthBytes;
  }

  /** @throws PullError as `part` */
  read(position: number, lengthBytes: number): Buffer {
    const first = this.part(position, lengthBytes);
    if (first.length === lengthBytes) return first;
    const whole = Buffer.allocUnsafe(lengthBytes);
    for (let done = first.copy(whole); done < lengthBytes; ) {
      done += this.part(position + done, lengthBytes - done).copy(whole, done);
    }
    return whole;
  }

  /**
   * The bytes from `position` on, up to `lengthBytes` of them or the end of their block. Good until the next call for any layer.
   * @throws PullError `digest-mismatch` when another read of the same block got other bytes, else as `PackReader.readInto`
   */
  part(position: number, lengthBytes: number): Buffer {
    const block = Math.floor(position / BLOCK_BYTES);
    const from = position - block * BLOCK_BYTES;
    const { bytes } = this.#blockAt(block);
    return bytes.subarray(from, Math.min(from + lengthBytes, BLOCK_BYTES));
  }

  #blockAt(block: number): Slot {
    const last = this.#last;
    if (last?.source === this && last.block === block) return last;
    this.#last = this.#cache.find(this, block) ?? this.#readBlock(block);
    return this.#last;
  }

  #readBlock(block: number): Slot {
    const slot = this.#cache.take();
    slot.source = undefined;
    const start = block * BLOCK_BYTES;
    const lengthBytes = Math.min(BLOCK_BYTES, this.lengthBytes - start);
    this.#readInto(slot.bytes, start, lengthBytes);
    const bytes = lengthBytes === BLOCK_BYTES ? slot.bytes : slot.bytes.subarray(0, lengthBytes);
    if (!this.#tags.agrees(block, bytes)) throw changedLayer(this.diffId);
    slot.source = this;
    slot.block = block;
    return slot;
  }

  #readInto(target: Buffer, position: number, lengthBytes: number): void {
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

  /** The extent that holds the byte at `position`: the one read last or one of the next, else by halving. */
  #rowAt(position: number): number {
    const { count } = this.#extents;
    for (let row = this.#row; row < Math.min(count, this.#row + 2); row++) {
      if (this.#holds(row, position)) {
        this.#row = row;
        return row;
      }
    }
    let low = 0;
    let high = count - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#extents.startAt(middle) <= position) low = middle;
      else high = middle - 1;
    }
    this.#row = low;
    return low;
  }

  #holds(row: number, position: number): boolean {
    const start = this.#extents.startAt(row);
    return position >= start && position < start + this.#extents.lengthAt(row);
  }
}

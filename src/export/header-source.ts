import type { Digest } from '../format/digest.js';
import type { TarSource } from '../format/tar-entries.js';
import { BLOCK_BYTES, BlockParts, type BlockTags, changedLayer, type PartTags } from './block-tags.js';
import type { ExtentReader, LayerSource } from './layer-source.js';

/** A header with its extended headers seldom has more; a small file's content and the next header come along. */
const WINDOW_BYTES = 4096;

/** A layer's tar, which may still be coming. */
export interface TarReader extends Pick<ExtentReader, 'lengthBytes' | 'readInto'> {
  /** How far the tar can be read now: at least to `end`, if it is that long. */
  reach(end: number): number;
}

/** What a layer's headers are read from, and compared with. */
export interface HeaderLayer {
  readonly diffId: Digest;
  readonly reader: TarReader;
  readonly partTags: PartTags;
  /** For whole blocks; undefined where others compare them later. */
  readonly whole: { readonly tags: BlockTags; readonly source: LayerSource } | undefined;
}

/** A layer's tar for one who reads little of it, at positions that ascend. Who hashes the layer compares what was read. */
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

  /** @throws PullError `digest-mismatch` when other bytes were hashed before, else as `PackReader.readInto` */
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
 * Has all that header sources of one thread return compared with what is hashed, a block at a time. Either the thread that hashes the
 * block finds the tag of what was read of it, or it was there before: then the whole block is read here, and compared with what it
 * hashed. It leaves its tag before it looks for this one, and this thread the other way round: one of them sees the other's.
 */
export class HeaderComparison {
  readonly #parts = new BlockParts();
  readonly #onLeft: (layer: HeaderLayer, block: number) => void;
  #layer: HeaderLayer | undefined;
  #block = 0;

  /** `onLeft` is called with each block that others are to compare as a whole, after this. */
  constructor(onLeft: (layer: HeaderLayer, block: number) => void = () => {}) {
    this.#onLeft = onLeft;
  }

  /** Adds what was read at `position` of a layer's tar. @throws PullError as `finish` */
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
   * To be called when all has been read.
   * @throws PullError `digest-mismatch` when other bytes were hashed, else as `PackReader.readInto`
   */
  finish(): void {
    const layer = this.#layer;
    if (layer === undefined) return;
    this.#layer = undefined;
    const { partTags, whole, diffId } = layer;
    const isAbandoned = partTags.leave(this.#block, this.#parts);
    if (whole === undefined) {
      // Left before, where a layer occurs twice.
      if (!isAbandoned && !partTags.areLeft(this.#block, this.#parts)) throw changedLayer(diffId);
      this.#onLeft(layer, this.#block);
    } else if (!isAbandoned || whole.tags.has(this.#block)) {
      if (!this.#parts.areIn(whole.source.wholeBlock(this.#block))) throw changedLayer(diffId);
    }
    this.#parts.clear();
  }
}

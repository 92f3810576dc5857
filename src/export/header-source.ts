import type { Digest } from '../format/digest.js';
import type { TarSource } from '../format/tar-entries.js';
import { BLOCK_BYTES, BlockParts, type BlockTags, changedLayer, type PartTags } from './block-tags.js';
import type { ExtentReader, LayerSource } from './layer-source.js';

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

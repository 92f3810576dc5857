import type { TarSource } from '../format/tar-entries.js';
import type { ExtentList } from '../store/extents.js';
import type { PackReader } from '../store/pack-reader.js';

/** A header with its extended headers seldom has more; a small file's content and the next header come along. */
const WINDOW_BYTES = 4096;

/** A layer's tar, read at any position from its extents. Fastest where positions ascend. */
export class LayerSource implements TarSource {
  readonly lengthBytes: number;
  readonly #packs: PackReader;
  readonly #extents: ExtentList;
  /** The extent that was read last. */
  #row = 0;
  #window = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  #windowStart = 0;
  #windowEnd = 0;

  constructor(packs: PackReader, extents: ExtentList) {
    this.#packs = packs;
    this.#extents = extents;
    this.lengthBytes = extents.lengthBytes;
  }

  /** @throws PullError as `PackReader.readInto` */
  read(position: number, lengthBytes: number): Buffer {
    if (position < this.#windowStart || position + lengthBytes > this.#windowEnd) {
      if (lengthBytes > this.#window.length) this.#window = Buffer.allocUnsafeSlow(lengthBytes);
      this.#windowStart = position;
      this.#windowEnd = Math.min(this.lengthBytes, position + this.#window.length);
      this.readInto(this.#window, 0, position, this.#windowEnd - position);
    }
    const from = position - this.#windowStart;
    return this.#window.subarray(from, from + lengthBytes);
  }

  /** Reads `lengthBytes` bytes at `position` into `target` at `at`. @throws PullError as `PackReader.readInto` */
  readInto(target: Uint8Array, at: number, position: number, lengthBytes: number): void {
    for (let done = 0; done < lengthBytes; ) {
      const row = this.#rowAt(position + done);
      const skipped = position + done - this.#extents.startAt(row);
      const part = Math.min(lengthBytes - done, this.#extents.lengthAt(row) - skipped);
      this.#packs.readInto(
        target,
        at + done,
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

import type { ExtentList } from '../store/extents.js';
import type { PackReader } from '../store/pack-reader.js';

/** Reads a layer's tar at any position from its extents, to which more can be appended. Fastest where positions ascend. */
export class ExtentReader {
  readonly #packs: PackReader;
  readonly #extents: ExtentList;
  /** The extent that was read last. */
  #row = 0;

  constructor(packs: PackReader, extents: ExtentList) {
    this.#packs = packs;
    this.#extents = extents;
  }

  get lengthBytes(): number {
    return this.#extents.lengthBytes;
  }

  /** How far the tar can be read. */
  reach(): number {
    return this.#extents.lengthBytes;
  }

  /** Fills `target` from its beginning with the bytes [position, position + lengthBytes). @throws PullError as `PackReader.readInto` */
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

  /** The extent that holds the byte at `position`: the one read last or one of the next, else by halving. */
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

import type { Digest } from '../format/digest.js';
import type { BlockTagRows, ExtentRows, FileBatch } from '../pool/messages.js';
import { ExtentList, type ExtentRows as StoreRows } from '../store/extents.js';
import { BLOCK_BYTES } from './block-tags.js';

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
    this.#extents.append(ExtentList.fromRows(rows as StoreRows));
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

import type { BlockTagRows } from '../pool/messages.js';
import { BLOCK_BYTES, tagOf } from './block-tags.js';

/** Before the parts of a block: how many numbers they take, and the two halves of their tag. */
const PREFIX_NUMBERS = 3;

/** Parts of one block: where they lie in it, and their bytes one after the other. */
export class BlockParts {
  /** Start and end of each, in ascending order; neighbours are one. */
  readonly #bounds: number[] = [];
  readonly #bytes = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #filled = 0;

  /** Where each begins and ends in the block. */
  get bounds(): readonly number[] {
    return this.#bounds;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#filled);
  }

  /** Adds `bytes`, which lie at `start` in the block, behind all that were added before. */
  add(start: number, bytes: Buffer): void {
    if (this.#bounds.at(-1) === start) this.#bounds.pop();
    else this.#bounds.push(start);
    this.#bounds.push(start + bytes.length);
    this.#filled += bytes.copy(this.#bytes, this.#filled);
  }

  /** Whether a block has these bytes at these places. */
  areIn(block: Buffer): boolean {
    let done = 0;
    for (let at = 0; at < this.#bounds.length; at += 2) {
      const [start, end] = [this.#bounds[at]!, this.#bounds[at + 1]!];
      if (block.compare(this.#bytes, done, done + end - start, start, end) !== 0) return false;
      done += end - start;
    }
    return true;
  }

  clear(): void {
    this.#bounds.length = 0;
    this.#filled = 0;
  }
}

/**
 * Shows that parts of a block, read by a thread that did not read the rest of it, are those that another thread hashes with the whole
 * block: the first leaves their places and a tag of their bytes, the second makes the same tag of what it hashes.
 */
export class PartTags {
  readonly #rows: BlockTagRows;
  #parts: BlockParts | undefined;

  constructor(rows: BlockTagRows) {
    this.#rows = rows;
  }

  /**
   * Leaves the tag of parts of a block. For one thread of an export.
   * @returns false when the block has one already, or no room is left
   */
  leave(block: number, { bounds, bytes }: BlockParts): boolean {
    const { key, records, recordOf } = this.#rows;
    // The first number says how many are used.
    const start = Math.max(1, records[0]!);
    const end = start + PREFIX_NUMBERS + bounds.length;
    if (recordOf[block] !== 0 || end > records.length) return false;
    records[start] = bounds.length;
    records.set(halvesOf(tagOf(key, bytes)), start + 1);
    records.set(bounds, start + PREFIX_NUMBERS);
    records[0] = end;
    Atomics.store(recordOf, block, start);
    return true;
  }

  /** Whether these very parts of a block left their tag. */
  areLeft(block: number, { bounds, bytes }: BlockParts): boolean {
    const { key, records, recordOf } = this.#rows;
    const start = Atomics.load(recordOf, block);
    if (start === 0 || records[start] !== bounds.length) return false;
    const [low, high] = halvesOf(tagOf(key, bytes));
    if (records[start + 1] !== low || records[start + 2] !== high) return false;
    return bounds.every((bound, i) => records[start + PREFIX_NUMBERS + i] === bound);
  }

  /** Whether a whole block has the parts of which a tag was left. */
  agree(block: number, bytes: Buffer): boolean {
    const { key, records, recordOf } = this.#rows;
    const start = Atomics.load(recordOf, block);
    if (start === 0) return true;
    this.#parts ??= new BlockParts();
    const parts = this.#parts;
    parts.clear();
    const first = start + PREFIX_NUMBERS;
    for (let at = first; at < first + records[start]!; at += 2)
      parts.add(records[at]!, bytes.subarray(records[at], records[at + 1]));
    const [low, high] = halvesOf(tagOf(key, parts.bytes));
    return records[start + 1] === low && records[start + 2] === high;
  }
}

function halvesOf(tag: bigint): readonly [low: number, high: number] {
  return [Number(BigInt.asUintN(32, tag)), Number(BigInt.asUintN(32, tag >> 32n))];
}

import { type CipherGCM, createCipheriv, randomBytes } from 'node:crypto';
import { PullError } from '../format/error.js';
import type { BlockTagRows } from '../pool/messages.js';

/**
 * Bytes of a layer's tar that have one tag. A tag costs 6 µs and 104 µs a MiB, where the hash of the layer costs 870 µs a MiB. Larger
 * blocks would gain little and cost much where files stand in another order than in the layer: each brings its whole block along.
 */
export const BLOCK_BYTES = 2 ** 18;

/** Nothing is encrypted and tags stay in memory: a nonce that never changes gives nothing away. */
const NONCE = Buffer.alloc(12);

const KEY_BYTES = 16;

/**
 * Numbers that the parts of all layers may take, two a part and three a block: 32 MiB, touched as they are used. Four million parts are the headers of as
 * many entries. Where they do not suffice, whole blocks are read.
 */
const MAX_PART_NUMBERS = 8 * 2 ** 20;

/** No tags yet for a layer whose tar has `tarBytes` bytes, in memory that all threads share. Twelve bytes a block. */
export function createBlockTags(tarBytes: number, records = createPartRecords()): BlockTagRows {
  const blocks = Math.ceil(tarBytes / BLOCK_BYTES);
  return {
    key: randomBytes(KEY_BYTES),
    tags: new BigInt64Array(new SharedArrayBuffer(blocks * 8)),
    records,
    recordOf: new Uint32Array(new SharedArrayBuffer(blocks * 4)),
  };
}

/** Room for the tags of parts of all layers of an export, in memory that all threads share. */
export function createPartRecords(numbers = MAX_PART_NUMBERS): Uint32Array<SharedArrayBuffer> {
  return new Uint32Array(new SharedArrayBuffer(numbers * 4));
}

/**
 * Shows that two threads which read the same block of a layer at different times got the same bytes: that what is written
 * to files is what was hashed. Each read leaves a tag, or compares with the one that is there.
 *
 * A tag is the first half of a GMAC (NIST SP 800-38D) under a random key of this export. A block that is changed without the key
 * keeps its tag with a probability of at most 2^-50.
 */
export class BlockTags {
  readonly #key: Uint8Array;
  readonly #tags: BigInt64Array;

  constructor({ key, tags }: BlockTagRows) {
    this.#key = key;
    this.#tags = tags;
  }

  /** Whether any thread has read this block. */
  has(block: number): boolean {
    return Atomics.load(this.#tags, block) !== 0n;
  }

  /** Whether no read of this block before, in any thread, got other bytes. */
  agrees(block: number, bytes: Uint8Array): boolean {
    const tag = tagOf(this.#key, bytes);
    const before = Atomics.compareExchange(this.#tags, block, 0n, tag);
    return before === 0n || before === tag;
  }
}

/** Tags a layer that comes in pieces of any length, block after block, for one thread that reads all of it. */
export class BlockTagger {
  readonly #rows: BlockTagRows;
  #cipher: CipherGCM | undefined;
  #block = 0;
  #filledBytes = 0;
  #agrees = true;

  constructor(rows: BlockTagRows) {
    this.#rows = rows;
  }

  /** Adds the next bytes of the tar. */
  add(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const part = bytes.subarray(done, done + BLOCK_BYTES - this.#filledBytes);
      this.#cipher ??= gmac(this.#rows.key);
      this.#cipher.setAAD(part);
      this.#filledBytes += part.length;
      done += part.length;
      if (this.#filledBytes === BLOCK_BYTES) this.#leave();
    }
  }

  /** No more to come. Returns whether every block has a tag now, and no other thread read other bytes of one. */
  end(): boolean {
    if (this.#filledBytes > 0) this.#leave();
    return this.#agrees;
  }

  #leave(): void {
    const { tags } = this.#rows;
    const tag = endOf(this.#cipher!);
    // A tar that is longer than was thought has no room for all of its tags.
    const before =
      this.#block < tags.length ? Atomics.compareExchange(tags, this.#block, 0n, tag) : undefined;
    this.#agrees &&= before === 0n || before === tag;
    this.#cipher = undefined;
    this.#block += 1;
    this.#filledBytes = 0;
  }
}

/** The tag of these bytes; never 0, which stands for none. */
function tagOf(key: Uint8Array, bytes: Uint8Array): bigint {
  const cipher = gmac(key);
  cipher.setAAD(bytes);
  return endOf(cipher);
}

function gmac(key: Uint8Array): CipherGCM {
  return createCipheriv('aes-128-gcm', key, NONCE);
}

function endOf(cipher: CipherGCM): bigint {
  cipher.final();
  return cipher.getAuthTag().readBigInt64LE() || 1n;
}

/** The error for a layer that was read twice and was not the same. */
export function changedLayer(diffId: string): PullError {
  return new PullError('digest-mismatch', `layer ${diffId} changed in the store while it was exported`, {
    layer: diffId,
    hint: 'something other than zpull writes to the packs of the store: stop it, run zpull store verify, then export again',
  });
}

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

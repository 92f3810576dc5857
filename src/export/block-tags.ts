import { type CipherGCM, createCipheriv, randomBytes } from 'node:crypto';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { BlockTagRows, FollowedLayer, LayerFollower } from '../pool/messages.js';

/**
 * Bytes of a layer's tar that share a tag. A tag costs 6 µs and 104 µs a MiB; hashing the layer
 * costs 870 µs a MiB. Larger blocks would gain little, and cost much where files are read out of
 * order, as each read covers the whole block.
 */
export const BLOCK_BYTES = 2 ** 18;

/** A constant nonce is safe: nothing is encrypted, and tags do not leave this process. */
const NONCE = Buffer.alloc(12);

const KEY_BYTES = 16;

/**
 * Limit of the numbers that describe the parts of all layers, two a part and three a block: 32 MiB,
 * which the system allocates on use. Four million parts are the headers of as many entries. Beyond
 * the limit, whole blocks are read.
 */
const MAX_PART_NUMBERS = 8 * 2 ** 20;

/** Numbers before the parts of a block: the count of those, and the two halves of their tag. */
const PREFIX_NUMBERS = 3;

/**
 * Allocates tags for a layer with `tarBytes` bytes in memory that all threads share: 12 bytes a
 * block.
 */
export function createBlockTags(tarBytes: number, records = createPartRecords()): BlockTagRows {
  const blocks = Math.ceil(tarBytes / BLOCK_BYTES);
  return {
    key: randomBytes(KEY_BYTES),
    tags: new BigInt64Array(new SharedArrayBuffer(blocks * 8)),
    records,
    recordOf: new Uint32Array(new SharedArrayBuffer(blocks * 4)),
  };
}

/** Allocates the records of parts of all layers of an export, in memory that all threads share. */
export function createPartRecords(numbers = MAX_PART_NUMBERS): Uint32Array<SharedArrayBuffer> {
  return new Uint32Array(new SharedArrayBuffer(numbers * 4));
}

/**
 * Detects when two threads read different bytes of the same block: what is written to files must be
 * what was hashed. The first read of a block stores its tag, each further read compares it.
 *
 * A tag is the first half of a GMAC (NIST SP 800-38D) under a random key of this export. Without
 * the key, a changed block keeps its tag with a probability of at most 2^-50.
 */
export class BlockTags {
  readonly #key: Uint8Array;
  readonly #tags: BigInt64Array;

  constructor({ key, tags }: BlockTagRows) {
    this.#key = key;
    this.#tags = tags;
  }

  /** Returns whether any thread has read this block. */
  has(block: number): boolean {
    return Atomics.load(this.#tags, block) !== 0n;
  }

  /** Returns whether all earlier reads of this block, in any thread, got the same bytes. */
  agrees(block: number, bytes: Uint8Array): boolean {
    const tag = tagOf(this.#key, bytes);
    const before = Atomics.compareExchange(this.#tags, block, 0n, tag);
    return before === 0n || before === tag;
  }
}

/** Tags the blocks of a layer that one thread reads from start to end, in pieces of any length. */
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
      if (this.#filledBytes === BLOCK_BYTES) this.#store();
    }
  }

  /**
   * Ends the layer. Returns whether every block has a tag and no other thread read different bytes.
   */
  end(): boolean {
    if (this.#filledBytes > 0) this.#store();
    return this.#agrees;
  }

  #store(): void {
    const { tags } = this.#rows;
    const tag = endOf(this.#cipher!);
    // There is no room for the tags of a tar that is longer than estimated.
    const before =
      this.#block < tags.length ? Atomics.compareExchange(tags, this.#block, 0n, tag) : undefined;
    this.#agrees &&= before === 0n || before === tag;
    this.#cipher = undefined;
    this.#block += 1;
    this.#filledBytes = 0;
  }
}

/** Returns the tag of these bytes; never 0, which means no tag. */
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

/** Returns the error for a layer of which two reads differ. */
export function changedLayer(diffId: string): PullError {
  return new PullError('digest-mismatch', `layer ${diffId} changed in the store while it was exported`, {
    layer: diffId,
    hint: 'something other than zpull writes to the packs of the store: stop it, run zpull store verify, then export again',
  });
}

/** Parts of one block: their bounds in it, and their bytes. */
export class BlockParts {
  /** Start and end of each part, ascending; adjacent parts are merged. */
  readonly #bounds: number[] = [];
  readonly #bytes = Buffer.allocUnsafeSlow(BLOCK_BYTES);
  #filled = 0;

  /** Start and end of each part in the block. */
  get bounds(): readonly number[] {
    return this.#bounds;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#filled);
  }

  /** Adds the bytes at `start` of the block, which must follow all earlier parts. */
  add(start: number, bytes: Buffer): void {
    if (this.#bounds.at(-1) === start) this.#bounds.pop();
    else this.#bounds.push(start);
    this.#bounds.push(start + bytes.length);
    this.#filled += bytes.copy(this.#bytes, this.#filled);
  }

  /** Returns whether a block has the same bytes at the same offsets. */
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
 * Detects when a thread that reads parts of a block and one that hashes the whole block get
 * different bytes: the first thread records the bounds and a tag of its parts, the second compares
 * the tag with that of the same parts of what it hashes.
 */
export class PartTags {
  readonly #rows: BlockTagRows;
  #parts: BlockParts | undefined;

  constructor(rows: BlockTagRows) {
    this.#rows = rows;
  }

  /**
   * Records the tag of parts of a block. For one thread of an export.
   * @returns false when the block has a tag already, or no room is left
   */
  record(block: number, { bounds, bytes }: BlockParts): boolean {
    const { key, records, recordOf } = this.#rows;
    // The first number is the count of used numbers.
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

  /** Returns whether exactly these parts of a block have been recorded. */
  hasRecorded(block: number, { bounds, bytes }: BlockParts): boolean {
    const { key, records, recordOf } = this.#rows;
    const start = Atomics.load(recordOf, block);
    if (start === 0 || records[start] !== bounds.length) return false;
    const [low, high] = halvesOf(tagOf(key, bytes));
    if (records[start + 1] !== low || records[start + 2] !== high) return false;
    return bounds.every((bound, i) => records[start + PREFIX_NUMBERS + i] === bound);
  }

  /** Returns whether a whole block agrees with its recorded parts, if it has any. */
  agrees(block: number, bytes: Buffer): boolean {
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

/**
 * Records the tags of the layers that a pull verifies, so that the export after it does not hash
 * them again.
 */
export class TagFollower implements LayerFollower {
  readonly tags = new Map<Digest, BlockTagRows>();
  readonly proven = new Set<Digest>();
  readonly #records = createPartRecords();

  begin(): void {}

  follow(diffId: Digest, maxTarBytes: number): FollowedLayer {
    const tags = createBlockTags(maxTarBytes, this.#records);
    return {
      tags,
      feed: () => {},
      // Each attempt has tags of its own: those of the last one are valid.
      end: (isProven) => {
        if (!isProven) return;
        this.tags.set(diffId, tags);
        this.proven.add(diffId);
      },
    };
  }
}

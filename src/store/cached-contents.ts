import { statFile } from '../files/open-file.js';
import {
  digestStart,
  hasRun,
  IndexScan,
  isContent,
  lengthOf,
  listIndexedPacks,
  packOffsetOf,
  RECORD_BYTES,
  type RecordType,
} from './pack-index.js';
import { indexPath, type PackId, type StorePaths } from './paths.js';

/**
 * Smaller contents are written again: an extent costs 20 bytes of the record and a call at each
 * read.
 */
const MIN_BYTES = 4096;

/**
 * Contents up to this size are found by digest; larger ones, which are never complete in memory, by
 * size.
 */
export const MAX_DIGEST_KEY_BYTES = 2 ** 20;

/** Sizes have 32 bits here; larger contents are written again. */
const MAX_BYTES = 2 ** 32 - 1;

/** 63 MB of rows. Contents beyond the limit are written again. */
const MAX_CONTENTS = 2 ** 21;

/**
 * Contents of one size that are kept where they are found by size, such as versions of a program.
 */
const MAX_SAME_SIZE = 4;

/** A third of the slots stays empty: a search for an absent digest looks at 5 slots. */
const SLOTS_PER_CONTENT = 1.5;

/** As for DigestTable: only chosen sizes make longer runs. */
const MAX_PROBES = 128;

/** A slot: key, size, row of the pack + 1 (0: empty), lower and upper half of the offset. */
const SLOT_WORDS = 5;

/** Contents of packs as a hash table for messages, which `CachedContents` reads; without slots, there are none. */
export interface CachedContentRows {
  readonly packs: readonly PackId[];
  readonly slots: Uint32Array<SharedArrayBuffer>;
}

/** The start of a run. */
export interface PackLocation {
  readonly pack: PackId;
  readonly offset: number;
}

/**
 * Lists the contents of sealed packs that an opaque layer can share.
 * @throws PullError as `storageError`
 */
export function listCachedContents(paths: StorePaths): CachedContentRows {
  const packs = listIndexedPacks(paths).filter(({ sealed }) => sealed);
  const records = packs.reduce((sum, { id }) => {
    const bytes = statFile(indexPath(paths, id, true))?.size ?? 0;
    return sum + Math.floor(bytes / RECORD_BYTES);
  }, 0);
  const maxCount = Math.min(records, MAX_CONTENTS);
  if (maxCount === 0) return noCachedContents();
  const rows = {
    packs: packs.map(({ id }) => id),
    slots: emptySlots(Math.ceil(maxCount * SLOTS_PER_CONTENT)),
  };
  const contents = new CachedContents(rows);
  const indexes = new IndexScan(paths);
  const { block } = indexes;
  let count = 0;
  for (const [row, pack] of packs.entries()) {
    // Does not check crc32, which would take half of the time: callers compare the bytes.
    const add = (type: RecordType, at: number): boolean => {
      if (!isContent(type) || count === maxCount) return false;
      const lengthBytes = lengthOf(block, at);
      if (!contents.accepts(lengthBytes)) return false;
      const offset = packOffsetOf(block, at);
      if (!hasRun(pack, offset, lengthBytes)) return false;
      if (contents.add(block, digestStart(at), lengthBytes, row, offset)) count += 1;
      return false;
    };
    indexes.read(pack, add, () => {});
  }
  return count > 0 ? rows : noCachedContents();
}

/** Returns the rows of a store without contents. */
export function noCachedContents(): CachedContentRows {
  return { packs: [], slots: emptySlots(0) };
}

function emptySlots(slots: number): Uint32Array<SharedArrayBuffer> {
  return new Uint32Array(new SharedArrayBuffer(slots * SLOT_WORDS * Uint32Array.BYTES_PER_ELEMENT));
}

/** Returns the key of a content: the first four bytes of its digest, or a hash of its size. */
function keyOf(bytes: Buffer, digestAt: number, lengthBytes: number): number {
  return lengthBytes > MAX_DIGEST_KEY_BYTES
    ? Math.imul(lengthBytes, 0x9e3779b1) >>> 0
    : bytes.readUInt32LE(digestAt);
}

/**
 * A table of contents in packs: open addressing over shared memory, 30 bytes a content. A location
 * may have other bytes or be gone, so the caller reads and compares them.
 */
export class CachedContents {
  readonly #packs: readonly PackId[];
  readonly #slots: Uint32Array;

  constructor({ packs, slots }: CachedContentRows) {
    this.#packs = packs;
    this.#slots = slots;
  }

  /** Returns whether the table has contents of this size. */
  accepts(lengthBytes: number): boolean {
    return this.#slots.length > 0 && lengthBytes >= MIN_BYTES && lengthBytes <= MAX_BYTES;
  }

  /**
   * Adds the content with the digest in `bytes` at `digestAt`; returns false if it is known or its
   * slots are full.
   */
  add(bytes: Buffer, digestAt: number, lengthBytes: number, packRow: number, offset: number): boolean {
    const slots = this.#slots;
    const key = keyOf(bytes, digestAt, lengthBytes);
    const maxSame = lengthBytes > MAX_DIGEST_KEY_BYTES ? MAX_SAME_SIZE : 1;
    let same = 0;
    let at = this.#first(key);
    for (let probe = 0; probe < MAX_PROBES && same < maxSame; probe++, at = this.#after(at)) {
      if (slots[at + 2] === 0) {
        slots[at] = key;
        slots[at + 1] = lengthBytes;
        slots[at + 2] = packRow + 1;
        slots[at + 3] = offset % 2 ** 32;
        slots[at + 4] = Math.floor(offset / 2 ** 32);
        return true;
      }
      if (slots[at] === key && slots[at + 1] === lengthBytes) same += 1;
    }
    return false;
  }

  /**
   * Yields locations of contents with this size and perhaps this digest, which is ignored above
   * MAX_DIGEST_KEY_BYTES.
   */
  *locations(lengthBytes: number, digest: Buffer): Generator<PackLocation, void, undefined> {
    if (!this.accepts(lengthBytes)) return;
    const slots = this.#slots;
    const key = keyOf(digest, 0, lengthBytes);
    let at = this.#first(key);
    for (let probe = 0; probe < MAX_PROBES; probe++, at = this.#after(at)) {
      if (slots[at + 2] === 0) return;
      if (slots[at] !== key || slots[at + 1] !== lengthBytes) continue;
      yield { pack: this.#packs[slots[at + 2]! - 1]!, offset: slots[at + 3]! + slots[at + 4]! * 2 ** 32 };
    }
  }

  #first(key: number): number {
    return Math.floor((key / 2 ** 32) * (this.#slots.length / SLOT_WORDS)) * SLOT_WORDS;
  }

  #after(at: number): number {
    return at + SLOT_WORDS === this.#slots.length ? 0 : at + SLOT_WORDS;
  }
}

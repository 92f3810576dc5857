import { statFile } from '../files/open-file.js';
import { wrapFsError } from '../files/storage-error.js';
import type { CachedRows } from '../pool/messages.js';
import { hasRun, IndexScan, listIndexedPacks } from './index-files.js';
import {
  digestStart,
  isContent,
  lengthOf,
  packOffsetOf,
  RECORD_BYTES,
  type RecordType,
} from './index-format.js';
import { indexPath, type PackId, type StorePaths } from './paths.js';

/** Less is written once more: an extent costs 20 bytes of the record, and a call whenever the layer is read. */
const MIN_BYTES = 4096;

/** Up to this, a content is found by its digest; a larger one, which nobody has whole in memory, by its size. */
export const MAX_DIGEST_KEY_BYTES = 2 ** 20;

/** Sizes have 32 bits here; what is larger is written once more. */
const MAX_BYTES = 2 ** 32 - 1;

/** 63 MB of rows. What a store has beyond that is written once more. */
const MAX_CONTENTS = 2 ** 21;

/** Places that are kept of one size where contents are found by it: versions of a program, say. */
const MAX_ALIKE = 4;

/** A third of the slots stays empty: 5 are looked at for a digest that is not there. */
const SLOTS_PER_CONTENT = 1.5;

/** As for DigestTable: only sizes that somebody chose make longer runs. */
const MAX_PROBES = 128;

/** A slot: key, size, row of the pack + 1 (0: empty), lower and upper half of the offset. */
const SLOT_WORDS = 5;

/** Where a run begins. */
export interface Place {
  readonly pack: PackId;
  readonly offset: number;
}

/** The contents in sealed packs that a stream may share, for `CachedContents`. @throws PullError as `storageError` */
export function listCachedContents(paths: StorePaths): CachedRows {
  const packs = listIndexedPacks(paths).filter(({ sealed }) => sealed);
  const sizes = packs.map(({ id }) => {
    const path = indexPath(paths, id, true);
    return wrapFsError(`look at ${path}`, () => statFile(path))?.size ?? 0;
  });
  const records = sizes.reduce((sum, bytes) => sum + Math.floor(bytes / RECORD_BYTES), 0);
  const most = Math.min(records, MAX_CONTENTS);
  if (most === 0) return noCachedContents();
  const rows = { packs: packs.map(({ id }) => id), slots: emptySlots(Math.ceil(most * SLOTS_PER_CONTENT)) };
  const held = new CachedContents(rows);
  const indexes = new IndexScan(paths);
  const { block } = indexes;
  let count = 0;
  for (const [row, pack] of packs.entries()) {
    // A record that is damaged does no harm either: its crc32 would cost half of the time.
    const take = (type: RecordType, at: number): boolean => {
      if (!isContent(type) || count === most) return false;
      const lengthBytes = lengthOf(block, at);
      if (!held.takes(lengthBytes)) return false;
      const offset = packOffsetOf(block, at);
      if (!hasRun(pack, offset, lengthBytes)) return false;
      if (held.add(block, digestStart(at), lengthBytes, row, offset)) count += 1;
      return false;
    };
    indexes.read(pack, take, () => {});
  }
  return count > 0 ? rows : noCachedContents();
}

/** A store without any. */
export function noCachedContents(): CachedRows {
  return { packs: [], slots: emptySlots(0) };
}

function emptySlots(slots: number): Uint32Array<SharedArrayBuffer> {
  return new Uint32Array(new SharedArrayBuffer(slots * SLOT_WORDS * Uint32Array.BYTES_PER_ELEMENT));
}

/** What a content is found by: the first four bytes of its digest, or its size, well spread. */
function keyOf(bytes: Buffer, digestAt: number, lengthBytes: number): number {
  return lengthBytes > MAX_DIGEST_KEY_BYTES
    ? Math.imul(lengthBytes, 0x9e3779b1) >>> 0
    : bytes.readUInt32LE(digestAt);
}

/**
 * Which contents packs have, and where: open addressing over shared memory, 30 bytes a content. What is found may be
 * something else, or gone: whoever asks reads it and compares.
 */
export class CachedContents {
  readonly #packs: readonly PackId[];
  readonly #slots: Uint32Array;

  constructor({ packs, slots }: CachedRows) {
    this.#packs = packs as readonly PackId[];
    this.#slots = slots;
  }

  /** Whether a content of this size may be here. */
  takes(lengthBytes: number): boolean {
    return this.#slots.length > 0 && lengthBytes >= MIN_BYTES && lengthBytes <= MAX_BYTES;
  }

  /** Adds the content whose digest stands in `bytes` at `digestAt`; false: it is here, or there is no room near its slot. */
  add(bytes: Buffer, digestAt: number, lengthBytes: number, packRow: number, offset: number): boolean {
    const slots = this.#slots;
    const key = keyOf(bytes, digestAt, lengthBytes);
    const most = lengthBytes > MAX_DIGEST_KEY_BYTES ? MAX_ALIKE : 1;
    let alike = 0;
    let at = this.#first(key);
    for (let probe = 0; probe < MAX_PROBES && alike < most; probe++, at = this.#after(at)) {
      if (slots[at + 2] === 0) {
        slots[at] = key;
        slots[at + 1] = lengthBytes;
        slots[at + 2] = packRow + 1;
        slots[at + 3] = offset % 2 ** 32;
        slots[at + 4] = Math.floor(offset / 2 ** 32);
        return true;
      }
      if (slots[at] === key && slots[at + 1] === lengthBytes) alike += 1;
    }
    return false;
  }

  /** Where contents of this size lie that may have this digest; of those above MAX_DIGEST_KEY_BYTES the digest is not asked. */
  *places(lengthBytes: number, digest: Buffer): Generator<Place, void, undefined> {
    if (!this.takes(lengthBytes)) return;
    const slots = this.#slots;
    const key = keyOf(digest, 0, lengthBytes);
    let at = this.#first(key);
    for (let probe = 0; probe < MAX_PROBES; probe++, at = this.#after(at)) {
      if (slots[at + 2] === 0) return;
      if (slots[at] !== key || slots[at + 1] !== lengthBytes) continue;
      yield { pack: this.#packs[slots[at + 2]! - 1]!, offset: slots[at + 3]! + slots[at + 4]! * 2 ** 32 };
    }
  }

  /** Where the slot stands at which the search for a key begins. */
  #first(key: number): number {
    return Math.floor((key / 2 ** 32) * (this.#slots.length / SLOT_WORDS)) * SLOT_WORDS;
  }

  #after(at: number): number {
    return at + SLOT_WORDS === this.#slots.length ? 0 : at + SLOT_WORDS;
  }
}

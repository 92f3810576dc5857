import { closeSync, readSync } from 'node:fs';
import { listNames } from '../files/guarded-directory.js';
import { openFile, statFile, UnfitFile } from '../files/open-file.js';
import { ifExists, systemCode, wrapFsError } from '../files/storage-error.js';
import { readBadRuns } from './bad-runs.js';
import { MAX_BAD_RECORDS, RECORD_BYTES, type RecordType, scanIndex } from './index-format.js';
import { indexPath, isPackId, type PackId, packPath, type StorePaths } from './paths.js';
import { overlapsRun, type Runs } from './runs.js';

/** Whole records read at a time: about 4 MiB. */
const BLOCK_BYTES = 52_428 * RECORD_BYTES;

/**
 * Bytes of all indexes together that one look at a store reads: 26 million contents, where a large store has a million, in about
 * two seconds. What is beyond counts as absent, and is fetched again.
 */
const MAX_INDEX_BYTES = 2 ** 31;

/** A pack that has an index. */
export interface IndexedPack {
  readonly id: PackId;
  readonly sealed: boolean;
  readonly sizeBytes: number;
  readonly bad: Runs;
}

/** All packs that have an index, the sealed ones first. @throws PullError as `storageError` */
export function listIndexedPacks(paths: StorePaths): IndexedPack[] {
  const names = ifExists(`read ${paths.packs}`, () => listNames(paths.packs)) ?? [];
  const listed = [true, false].flatMap((sealed) => {
    const suffix = sealed ? '.idx' : '.idx.open';
    const ids = names.filter((name) => name.endsWith(suffix)).map((name) => name.slice(0, -suffix.length));
    return ids.filter(isPackId).map((id) => ({ id, sealed }));
  });
  return listed.flatMap(({ id, sealed }) => {
    const path = packPath(paths, id);
    const stat = wrapFsError(`look at ${path}`, () => statFile(path));
    return stat === undefined ? [] : [{ id, sealed, sizeBytes: stat.size, bad: readBadRuns(paths, id) }];
  });
}

/** Whether a run exists: the pack is long enough, and no byte of it is known to be false. */
export function hasRun(pack: IndexedPack, offset: number, lengthBytes: number): boolean {
  return offset + lengthBytes <= pack.sizeBytes && !overlapsRun(pack.bad, offset, offset + lengthBytes);
}

/** One look at the indexes of a store, with the memory that they are read into and how much of them may be read. */
export class IndexScan {
  readonly block: Buffer;
  /** Where `block` begins in the index. */
  blockStart = 0;
  readonly #paths: StorePaths;
  #leftBytes: number;

  constructor(
    paths: StorePaths,
    block: Buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES),
    maxBytes = MAX_INDEX_BYTES,
  ) {
    this.#paths = paths;
    this.block = block;
    this.#leftBytes = maxBytes;
  }

  /**
   * `scanIndex` over the index of a pack, block by block: `wants` and `visit` get places in `block`. An index that was
   * sealed since it was listed is found under its new name; one that is gone, or no regular file, has no records.
   * @throws PullError as `storageError`
   */
  read(
    pack: IndexedPack,
    wants: (type: RecordType, at: number) => boolean,
    visit: (type: RecordType, at: number) => void,
  ): void {
    const path = indexPath(this.#paths, pack.id, pack.sealed);
    wrapFsError(`read ${path}`, () => {
      const fd = openIndex(this.#paths, pack);
      if (fd === undefined) return;
      try {
        this.#readAll(fd, wants, visit);
      } finally {
        closeSync(fd);
      }
    });
  }

  #readAll(
    fd: number,
    wants: (type: RecordType, at: number) => boolean,
    visit: (type: RecordType, at: number) => void,
  ): void {
    let bad = 0;
    for (let position = 0; bad < MAX_BAD_RECORDS; ) {
      const whole = Math.min(this.block.length, this.#leftBytes - (this.#leftBytes % RECORD_BYTES));
      const room = whole === this.block.length ? this.block : this.block.subarray(0, whole);
      const filled = fill(fd, room, position);
      this.#leftBytes -= filled;
      this.blockStart = position;
      position += filled;
      bad = scanIndex(filled === room.length ? room : room.subarray(0, filled), wants, visit, bad);
      if (filled < this.block.length) return;
    }
  }
}

function openIndex(paths: StorePaths, pack: IndexedPack): number | undefined {
  for (const sealed of [pack.sealed, true]) {
    try {
      return openFile(indexPath(paths, pack.id, sealed));
    } catch (error) {
      if (systemCode(error) !== 'ENOENT' && !(error instanceof UnfitFile)) throw error;
    }
  }
  return undefined;
}

/** Reads until the block is full or the file ends; returns the bytes read. */
function fill(fd: number, block: Buffer, position: number): number {
  let filled = 0;
  while (filled < block.length) {
    const read = readSync(fd, block, filled, block.length - filled, position + filled);
    if (read === 0) break;
    filled += read;
  }
  return filled;
}

import { closeSync, readSync } from 'node:fs';
import { listNames } from '../files/guarded-directory.js';
import { openFile, statFile, UnfitFile } from '../files/open-file.js';
import { ifExists, systemCode, wrapFsError } from '../files/storage-error.js';
import { readBadRuns } from './bad-runs.js';
import { MAX_BAD_RECORDS, RECORD_BYTES, type RecordType, scanIndex } from './index-format.js';
import { indexPath, isPackId, type PackId, packPath, type StorePaths } from './paths.js';
import { overlapsRun, type Runs } from './runs.js';

/** Complete records read at a time: about 4 MiB. */
const BLOCK_BYTES = 52_428 * RECORD_BYTES;

/**
 * Bytes that one scan reads of all indexes together: 26 million records in about two seconds. A
 * large store has a million. Contents beyond the limit count as absent and are fetched again.
 */
const MAX_INDEX_BYTES = 2 ** 31;

/** A pack with an index. */
export interface IndexedPack {
  readonly id: PackId;
  readonly sealed: boolean;
  readonly sizeBytes: number;
  readonly bad: Runs;
}

/** Lists all packs with an index, sealed ones first. @throws PullError as `storageError` */
export function listIndexedPacks(paths: StorePaths): IndexedPack[] {
  const names = ifExists(`read ${paths.packs}`, () => listNames(paths.packs)) ?? [];
  const listed = [true, false].flatMap((sealed) => {
    const suffix = sealed ? '.idx' : '.idx.open';
    const ids = names.filter((name) => name.endsWith(suffix)).map((name) => name.slice(0, -suffix.length));
    return ids.filter(isPackId).map((id) => ({ id, sealed }));
  });
  return listed.flatMap(({ id, sealed }) => {
    const path = packPath(paths, id);
    const stat = wrapFsError(`stat ${path}`, () => statFile(path));
    return stat === undefined ? [] : [{ id, sealed, sizeBytes: stat.size, bad: readBadRuns(paths, id) }];
  });
}

/** Returns whether the pack has a run, and none of its bytes is in a bad run. */
export function hasRun(pack: IndexedPack, offset: number, lengthBytes: number): boolean {
  return offset + lengthBytes <= pack.sizeBytes && !overlapsRun(pack.bad, offset, offset + lengthBytes);
}

/** A scan of the indexes of a store, with its buffer and a limit on the bytes read. */
export class IndexScan {
  readonly block: Buffer;
  /** Where `block` begins in the index. */
  blockStart = 0;
  readonly #paths: StorePaths;
  #remainingBytes: number;

  constructor(
    paths: StorePaths,
    block: Buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES),
    maxBytes = MAX_INDEX_BYTES,
  ) {
    this.#paths = paths;
    this.block = block;
    this.#remainingBytes = maxBytes;
  }

  /**
   * Runs `scanIndex` over the index of a pack; `filter` and `visit` get offsets in `block`. Finds
   * an index that was sealed since it was listed; a missing index or an irregular file has no
   * records.
   * @throws PullError as `storageError`
   */
  read(
    pack: IndexedPack,
    filter: (type: RecordType, at: number) => boolean,
    visit: (type: RecordType, at: number) => void,
  ): void {
    const path = indexPath(this.#paths, pack.id, pack.sealed);
    wrapFsError(`read ${path}`, () => {
      const fd = openIndex(this.#paths, pack);
      if (fd === undefined) return;
      try {
        this.#readAll(fd, filter, visit);
      } finally {
        closeSync(fd);
      }
    });
  }

  #readAll(
    fd: number,
    filter: (type: RecordType, at: number) => boolean,
    visit: (type: RecordType, at: number) => void,
  ): void {
    let bad = 0;
    for (let position = 0; bad < MAX_BAD_RECORDS; ) {
      const maxBytes = Math.min(
        this.block.length,
        this.#remainingBytes - (this.#remainingBytes % RECORD_BYTES),
      );
      const room = maxBytes === this.block.length ? this.block : this.block.subarray(0, maxBytes);
      const filled = fill(fd, room, position);
      this.#remainingBytes -= filled;
      this.blockStart = position;
      position += filled;
      bad = scanIndex(filled === room.length ? room : room.subarray(0, filled), filter, visit, bad);
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

import { closeSync, readSync } from 'node:fs';
import { listNames } from '../files/guarded-directory.js';
import { openFile, statFile, UnfitFile } from '../files/open-file.js';
import { type BadRuns, overlapsBad, readBadRuns } from './bad-runs.js';
import { RECORD_BYTES, type RecordType, scanIndex } from './index-format.js';
import { indexPath, isPackId, type PackId, packPath, type StorePaths } from './paths.js';
import { onDisk, systemCode, unlessAbsent } from './storage-error.js';

/** Whole records read at a time: about 4 MiB. */
const BLOCK_BYTES = 52_428 * RECORD_BYTES;

/** What is beyond is not read: 50 million contents. A made-up file may have holes without end. */
const MAX_INDEX_BYTES = 2 ** 32;

/** A pack that has an index. */
export interface IndexedPack {
  readonly id: PackId;
  readonly sealed: boolean;
  readonly sizeBytes: number;
  readonly bad: BadRuns;
}

/** All packs that have an index, the sealed ones first. @throws PullError as `storageError` */
export function listIndexedPacks(paths: StorePaths): IndexedPack[] {
  const names = unlessAbsent(`read ${paths.packs}`, () => listNames(paths.packs)) ?? [];
  const listed = [true, false].flatMap((sealed) => {
    const suffix = sealed ? '.idx' : '.idx.open';
    const ids = names.filter((name) => name.endsWith(suffix)).map((name) => name.slice(0, -suffix.length));
    return ids.filter(isPackId).map((id) => ({ id, sealed }));
  });
  return listed.flatMap(({ id, sealed }) => {
    const path = packPath(paths, id);
    const stat = onDisk(`look at ${path}`, () => statFile(path));
    return stat === undefined ? [] : [{ id, sealed, sizeBytes: stat.size, bad: readBadRuns(paths, id) }];
  });
}

/** Whether a run exists: the pack is long enough, and no byte of it is known to be false. */
export function hasRun(pack: IndexedPack, offset: number, lengthBytes: number): boolean {
  return offset + lengthBytes <= pack.sizeBytes && !overlapsBad(pack.bad, offset, lengthBytes);
}

/** The memory that index files are read into; one look-up needs it once. */
export function allocateIndexBlock(): Buffer {
  return Buffer.allocUnsafeSlow(BLOCK_BYTES);
}

/**
 * `scanIndex` over the index of a pack, block by block: `wants` and `visit` get places in `block`. An index that was
 * sealed since it was listed is found under its new name; one that is gone, or no regular file, has no records.
 * @throws PullError as `storageError`
 */
export function scanIndexFile(
  paths: StorePaths,
  pack: IndexedPack,
  block: Buffer,
  wants: (type: RecordType, at: number) => boolean,
  visit: (type: RecordType, at: number) => void,
): void {
  const path = indexPath(paths, pack.id, pack.sealed);
  onDisk(`read ${path}`, () => {
    const fd = openIndex(paths, pack);
    if (fd === undefined) return;
    try {
      for (let position = 0; position < MAX_INDEX_BYTES; position += block.length) {
        const filled = fill(fd, block, position);
        scanIndex(filled === block.length ? block : block.subarray(0, filled), wants, visit);
        if (filled < block.length) return;
      }
    } finally {
      closeSync(fd);
    }
  });
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

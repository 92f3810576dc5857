import { closeSync, constants, fsyncSync, ftruncateSync, writeSync } from 'node:fs';
import { syncDirectorySync } from '../files/atomic-file.js';
import { withGuarded } from '../files/guarded-directory.js';
import { openFile, readFile, UnfitFile } from '../files/open-file.js';
import { ifExists, wrapFsError } from '../files/storage-error.js';
import { mergePairs } from '../format/arrays.js';
import { badRunsPath, type PackId, type StorePaths } from './paths.js';
import type { Runs } from './runs.js';

/** An entry of `ID.bad`: u64 offset and u64 length, little-endian. */
const ENTRY_BYTES = 16;

/** 65,536 entries. Nothing in a pack with more bad runs is worth reusing. */
const MAX_LIST_BYTES = 2 ** 20;

const NO_RUNS: Runs = new Float64Array(0);
const ALL_BYTES: Runs = Float64Array.of(0, Number.POSITIVE_INFINITY);

/** A part of one pack. */
export interface PackRun {
  readonly offset: number;
  readonly lengthBytes: number;
}

/**
 * Records that these runs of a pack differ from what its index or a layer record states. Any
 * process may do so: one append of 16 bytes a run, synced when this returns.
 * @throws PullError as `storageError`
 */
export function markBad(paths: StorePaths, id: PackId, runs: readonly PackRun[]): void {
  const list = Buffer.alloc(ENTRY_BYTES * runs.length);
  for (const [i, { offset, lengthBytes }] of runs.entries()) {
    list.writeBigUInt64LE(BigInt(offset), i * ENTRY_BYTES);
    list.writeBigUInt64LE(BigInt(lengthBytes), i * ENTRY_BYTES + 8);
  }
  changeList(paths, id, constants.O_APPEND, (fd) => writeSync(fd, list));
}

/**
 * Marks all of a pack as bad, for every process: cuts its list to one byte, which no later append
 * makes valid again. Unlike an entry, this needs no space on a full disk.
 * @throws PullError as `storageError`
 */
export function markLost(paths: StorePaths, id: PackId): void {
  changeList(paths, id, 0, (fd) => ftruncateSync(fd, 1));
}

/**
 * Returns whether all of a pack is bad, as after `markLost` by any process.
 * @throws PullError as `storageError`
 */
export function isLost(paths: StorePaths, id: PackId): boolean {
  return readBadRuns(paths, id) === ALL_BYTES;
}

/** Changes the list of a pack, creating it if needed, and syncs the file and its directory. */
function changeList(paths: StorePaths, id: PackId, flags: number, change: (fd: number) => void): void {
  const path = badRunsPath(paths, id);
  const writing = constants.O_WRONLY | constants.O_CREAT | flags;
  wrapFsError(`write ${path}`, () => {
    const fd = withGuarded(path, (at) => openFile(path, writing, at));
    try {
      change(fd);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  });
  syncDirectorySync(paths.packs);
}

/**
 * Returns the bad runs of a pack. A malformed list (truncated, too long, not a regular file, or
 * with impossible numbers) makes the whole pack bad: that costs a download, the opposite a wrong
 * byte.
 * @throws PullError as `storageError`
 */
export function readBadRuns(paths: StorePaths, id: PackId): Runs {
  const bytes = readList(badRunsPath(paths, id));
  if (bytes === undefined) return NO_RUNS;
  if (bytes === 'unfit' || bytes.length % ENTRY_BYTES !== 0) return ALL_BYTES;
  const pairs: number[] = [];
  for (let at = 0; at < bytes.length; at += ENTRY_BYTES) {
    const start = Number(bytes.readBigUInt64LE(at));
    const end = start + Number(bytes.readBigUInt64LE(at + 8));
    if (!Number.isSafeInteger(end)) return ALL_BYTES;
    if (end > start) pairs.push(start, end);
  }
  return mergePairs(Float64Array.from(pairs));
}

function readList(path: string): Buffer | 'unfit' | undefined {
  try {
    return ifExists(`read ${path}`, () => readFile(path, MAX_LIST_BYTES));
  } catch (error) {
    if (error instanceof UnfitFile) return 'unfit';
    throw error;
  }
}

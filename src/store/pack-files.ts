import { closeSync, constants, fsyncSync, ftruncateSync, writeSync } from 'node:fs';
import { moveFile, removeFile, syncDirectory, syncDirectorySync, syncFile } from '../files/atomic-file.js';
import { withGuarded } from '../files/guarded-directory.js';
import { openFile, readIfExists, statFile, unlessUnfit } from '../files/open-file.js';
import { wrapFsError } from '../files/storage-error.js';
import { mergePairs } from '../format/arrays.js';
import { PullError } from '../format/error.js';
import type { Runs } from './extents.js';
import { badRunsPath, indexPath, type PackId, packPath, type StorePaths } from './paths.js';

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
  const bytes = unlessUnfit(() => readIfExists(badRunsPath(paths, id), MAX_LIST_BYTES), 'unfit' as const);
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

/**
 * Packs of which a sync has failed in this process. Linux reports a failed write-back once: a
 * second fsync would succeed, while reads return cached bytes that are not on the disk (Rebello et
 * al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). So a sync is never
 * repeated, and `markLost` tells other processes.
 */
const lost = new Set<string>();

/**
 * Syncs packs, whichever process wrote them, unless they are sealed. Runs on libuv's pool.
 * @throws PullError as `storageError`; from then on every sync of the pack fails, and for every
 *   process all of the pack is bad
 */
export async function syncPacks(paths: StorePaths, ids: readonly PackId[]): Promise<void> {
  const unsealed = ids.filter((id) => statFile(indexPath(paths, id, true)) === undefined);
  await Promise.all(unsealed.map((id) => syncPack(paths, id)));
  if (unsealed.length > 0) await syncDirectory(paths.packs, () => lose(paths, unsealed));
}

/**
 * Seals a complete pack: syncs pack and index, then gives the index its final name. From then on
 * look-ups trust the index without reading the pack.
 * @throws PullError as `syncPacks`
 */
export async function sealPack(paths: StorePaths, id: PackId): Promise<void> {
  await syncPack(paths, id);
  const open = indexPath(paths, id, false);
  const onLoss = () => lose(paths, [id]);
  await syncFile(open, onLoss);
  await moveFile(open, indexPath(paths, id, true));
  await syncDirectory(paths.packs, onLoss);
}

/**
 * Deletes a pack, its indexes first, so that no index names missing bytes.
 * @param before called before each file; if it throws, `zpull store prune` deletes the remaining
 *   files
 * @throws PullError as `storageError`, and what `before` throws
 */
export async function removePack(
  paths: StorePaths,
  id: PackId,
  before: () => void = () => {},
): Promise<void> {
  const indexes = [indexPath(paths, id, false), indexPath(paths, id, true)];
  for (const path of [...indexes, packPath(paths, id), badRunsPath(paths, id)]) {
    before();
    await removeFile(path);
  }
}

/** Records that a sync of these packs has failed. */
function lose(paths: StorePaths, ids: readonly PackId[]): void {
  for (const id of ids) {
    lost.add(packPath(paths, id));
    try {
      markLost(paths, id);
    } catch {
      // The mark may have been written, even if its sync failed. It need not survive a power cut,
      // after which reads return the bytes on the disk.
    }
  }
}

/** @throws PullError `store-broken` for a pack whose sync has failed */
function requireSynced(paths: StorePaths, id: PackId): void {
  const path = packPath(paths, id);
  if (!lost.has(path) && !isLost(paths, id)) return;
  throw new PullError('store-broken', `${path} was not written to the disk`, {
    hint: 'Check the disk, then pull again.',
  });
}

/** Checks twice: of two processes that sync a pack at the same time, only one gets the error. */
async function syncPack(paths: StorePaths, id: PackId): Promise<void> {
  requireSynced(paths, id);
  await syncFile(packPath(paths, id), () => lose(paths, [id]));
  requireSynced(paths, id);
}

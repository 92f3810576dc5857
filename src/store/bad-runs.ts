import { closeSync, constants, fsyncSync, ftruncateSync, writeSync } from 'node:fs';
import { within } from '../files/guarded-directory.js';
import { openFile, readFile, UnfitFile } from '../files/open-file.js';
import { ifExists, wrapFsError } from '../files/storage-error.js';
import { lastAtMost } from '../format/arrays.js';
import { type BlobRange, joinRanges } from '../format/ranges.js';
import { syncDirectorySync } from './atomic-file.js';
import { badRunsPath, type PackId, type StorePaths } from './paths.js';

/** A run that proved false: u64 offset, u64 length, little-endian. */
const RUN_BYTES = 16;

/** 65,536 runs: a pack with more false places than that is not worth asking. */
const MAX_LIST_BYTES = 2 ** 20;

/** The runs of one pack that proved false, merged, in order. Half-open: run i is [start[i], end[i]). */
export interface BadRuns {
  readonly start: Float64Array;
  readonly end: Float64Array;
}

const NONE: BadRuns = { start: new Float64Array(0), end: new Float64Array(0) };
const ALL: BadRuns = { start: Float64Array.of(0), end: Float64Array.of(Number.POSITIVE_INFINITY) };

/** A part of one pack. */
export interface PackRun {
  readonly offset: number;
  readonly lengthBytes: number;
}

/**
 * Notes that these runs of a pack are not what its index or a layer record says. Any process may do so: the note is
 * one append of 16 bytes a run, and on disk when this returns.
 * @throws PullError as `storageError`
 */
export function markBad(paths: StorePaths, id: PackId, runs: readonly PackRun[]): void {
  const list = Buffer.alloc(RUN_BYTES * runs.length);
  for (const [i, { offset, lengthBytes }] of runs.entries()) {
    list.writeBigUInt64LE(BigInt(offset), i * RUN_BYTES);
    list.writeBigUInt64LE(BigInt(lengthBytes), i * RUN_BYTES + 8);
  }
  changeList(paths, id, constants.O_APPEND, (fd) => writeSync(fd, list));
}

/**
 * Says to all processes that nothing of a pack is to be believed: its list is one byte long, and can never be understood again,
 * whatever is appended. Other than a run, that needs no room on a disk that is full.
 * @throws PullError as `storageError`
 */
export function markLost(paths: StorePaths, id: PackId): void {
  changeList(paths, id, 0, (fd) => ftruncateSync(fd, 1));
}

/** Whether nothing of a pack is to be believed, as after `markLost` by any process. @throws PullError as `storageError` */
export function isLost(paths: StorePaths, id: PackId): boolean {
  return readBadRuns(paths, id) === ALL;
}

/** Changes the list of a pack, which is made if it is not there, and makes that survive a power cut. */
function changeList(paths: StorePaths, id: PackId, flags: number, change: (fd: number) => void): void {
  const path = badRunsPath(paths, id);
  const writing = constants.O_WRONLY | constants.O_CREAT | flags;
  wrapFsError(`write ${path}`, () => {
    const fd = within(path, (at) => openFile(path, writing, at));
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
 * The bad runs of a pack. A list that cannot be understood (cut, too long, no regular file, or with impossible numbers) makes all
 * of its pack bad: that costs a download, the other way round a wrong byte.
 * @throws PullError as `storageError`
 */
export function readBadRuns(paths: StorePaths, id: PackId): BadRuns {
  const bytes = readList(badRunsPath(paths, id));
  if (bytes === undefined) return NONE;
  if (bytes === 'unfit' || bytes.length % RUN_BYTES !== 0) return ALL;
  const runs: { start: number; end: number }[] = [];
  for (let at = 0; at < bytes.length; at += RUN_BYTES) {
    const start = Number(bytes.readBigUInt64LE(at));
    const end = start + Number(bytes.readBigUInt64LE(at + 8));
    if (!Number.isSafeInteger(end)) return ALL;
    if (end > start) runs.push({ start, end });
  }
  return merge(runs);
}

function readList(path: string): Buffer | 'unfit' | undefined {
  try {
    return ifExists(`read ${path}`, () => readFile(path, MAX_LIST_BYTES));
  } catch (error) {
    if (error instanceof UnfitFile) return 'unfit';
    throw error;
  }
}

function merge(runs: readonly BlobRange[]): BadRuns {
  const merged = joinRanges(runs);
  return {
    start: Float64Array.from(merged, (run) => run.start),
    end: Float64Array.from(merged, (run) => run.end),
  };
}

/** Whether a byte of [offset, offset + lengthBytes) is in a bad run. */
export function overlapsBad(bad: BadRuns, offset: number, lengthBytes: number): boolean {
  // The first run that ends behind `offset`.
  const row = lastAtMost(bad.end, bad.end.length, offset) + 1;
  return row < bad.start.length && bad.start[row]! < offset + lengthBytes;
}

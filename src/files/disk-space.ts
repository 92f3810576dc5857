import { type StatsFs, statfsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { PullError } from '../format/error.js';
import { formatBytes } from '../format/figures.js';
import { statFile } from './open-file.js';
import { systemCode, wrapFsErrorAsync } from './storage-error.js';

/**
 * Space that the store leaves free on its file system: 2 % of it, at most 256 MiB. It keeps logs,
 * other programs and `zpull store prune` working. A larger reserve would refuse pulls on disks that
 * are always nearly full.
 */
const RESERVE_SHARE = 1 / 50;
const MAX_RESERVE_BYTES = 256 * 2 ** 20;

/**
 * Bytes written between two calls of statfs, which take some microseconds; fewer when little space
 * is left.
 */
const MAX_UNCHECKED_BYTES = 16 * 2 ** 20;
const MIN_UNCHECKED_BYTES = 64 * 1024;
/**
 * The share of the remaining space that each of up to 16 threads may write before the next check.
 */
const UNCHECKED_SHARE = 1 / 16;

function reserveBytes(totalBytes: number): number {
  return Math.min(MAX_RESERVE_BYTES, Math.floor(totalBytes * RESERVE_SHARE));
}

/** Keeps one writer from using up the reserve of the store's file system. */
export class SpaceGuard {
  readonly #directory: string;
  #uncheckedBytes = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * To be called before each write.
   * @throws PullError `store-full` if `bytes` more would use up the reserve
   */
  use(bytes: number): void {
    this.#uncheckedBytes -= bytes;
    if (this.#uncheckedBytes < 0) this.#uncheckedBytes = this.#check(bytes);
  }

  /** Returns how many bytes may be written before the next check. */
  #check(bytes: number): number {
    const space = spaceIn(this.#directory);
    if (space === undefined) return MAX_UNCHECKED_BYTES;
    const reserve = reserveBytes(space.totalBytes);
    const roomBytes = space.freeBytes - bytes - reserve;
    if (roomBytes >= 0)
      return Math.max(MIN_UNCHECKED_BYTES, Math.min(MAX_UNCHECKED_BYTES, roomBytes * UNCHECKED_SHARE));
    throw new PullError(
      'store-full',
      `${this.#directory} has ${formatBytes(space.freeBytes)} free, of which ${formatBytes(reserve)} are a reserve for other programs`,
      {
        hint: 'Free some space there, or choose another place with --store; what was fetched so far is kept.',
      },
    );
  }
}

/** Size and free space of a file system. */
interface Space {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/**
 * Returns undefined for a file system without a size, such as some network and FUSE file systems.
 */
function spaceOf({ blocks, bfree, bavail, bsize }: StatsFs): Space | undefined {
  if (blocks === 0) return undefined;
  // Only root may use the blocks reserved for it.
  return { totalBytes: bsize * blocks, freeBytes: bsize * (process.geteuid?.() === 0 ? bfree : bavail) };
}

/** As `spaceOf`; undefined also if statfs fails: the write that follows reports why. */
function spaceIn(directory: string): Space | undefined {
  try {
    return spaceOf(statfsSync(directory));
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
    return undefined;
  }
}

/**
 * `statfs().type` of file systems that compress, which hold more than their free space
 * (linux/magic.h, OpenZFS, bcachefs).
 */
const COMPRESSING: readonly number[] = [0x9123683e, 0x2fc12fc1, 0xca451a4e];

/**
 * Checks for `neededBytes` of free space in a directory before anything is fetched. Other programs
 * may still use the space up afterwards.
 * @param keepsReserve the reserve of `SpaceGuard` does not count as free
 * @throws PullError `store-full` with the number of missing bytes
 */
export async function requireSpace(
  directory: string,
  neededBytes: number,
  keepsReserve = false,
): Promise<void> {
  const freeBytes = neededBytes === 0 ? undefined : await freeBytesOf(directory, keepsReserve);
  if (freeBytes === undefined || freeBytes >= neededBytes) return;
  const missing = neededBytes - freeBytes;
  const reserved = keepsReserve ? ', without a reserve for other programs' : '';
  const free = `${formatBytes(Math.max(0, freeBytes))} free${reserved}`;
  throw new PullError(
    'store-full',
    `${directory} needs ${formatBytes(neededBytes)} and has ${free}: ${formatBytes(missing)} are missing`,
    { hint: 'Free some space there, or choose another place with --store.' },
  );
}

/**
 * Returns how many bytes can be written to a directory once `storeBytes` more were written to the
 * store, without the reserve of `SpaceGuard`; infinite if unknown, negative if the store alone
 * needs more.
 */
export async function spareBytes(directory: string, store: string, storeBytes: number): Promise<number> {
  const freeBytes = await freeBytesOf(directory, true);
  if (freeBytes === undefined) return Number.POSITIVE_INFINITY;
  return (await mayShareSpace(directory, store)) ? freeBytes - storeBytes : freeBytes;
}

/**
 * Returns whether two directories may be on one file system. Its subvolumes differ in device
 * number, not in size.
 */
async function mayShareSpace(one: string, other: string): Promise<boolean> {
  const [a, b] = await wrapFsErrorAsync(`stat ${one}`, () => Promise.all([statfs(one), statfs(other)]));
  return a.type === b.type && a.bsize === b.bsize && a.blocks === b.blocks;
}

/** The unit of `blocks` in `stat`, on every system (POSIX.1-2017, sys/stat.h). */
export const BLOCK_BYTES = 512;

/**
 * Returns the disk space of a file in bytes, 0 for an absent one.
 * @throws PullError as `storageError`
 */
export function allocatedBytes(path: string): number {
  return (statFile(path)?.blocks ?? 0) * BLOCK_BYTES;
}

/** Returns how many bytes this user can write to `directory`, or undefined if that is unknown. */
async function freeBytesOf(directory: string, keepsReserve: boolean): Promise<number | undefined> {
  try {
    const stats = await statfs(directory);
    const space = COMPRESSING.includes(stats.type) ? undefined : spaceOf(stats);
    if (space === undefined) return undefined;
    return keepsReserve ? Math.max(0, space.freeBytes - reserveBytes(space.totalBytes)) : space.freeBytes;
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
    return undefined;
  }
}

let makeRoom: () => boolean = () => false;

/**
 * Sets what `retryIfFull` calls in this thread when the disk is full; `make` returns whether to try
 * again.
 */
export function onFullDisk(make: () => boolean): void {
  makeRoom = make;
}

/**
 * Runs `write`, and once more if the disk was full and space could be freed.
 * @throws what `write` throws
 */
export function retryIfFull<T>(write: () => T): T {
  try {
    return write();
  } catch (error) {
    if (!isFull(error) || !makeRoom()) throw error;
    return write();
  }
}

/** As `retryIfFull` for an asynchronous write; `from` frees space. */
export async function retryIfFullAsync<T>(
  from: { makeRoom?(): Promise<void> } | undefined,
  write: () => Promise<T>,
): Promise<T> {
  try {
    return await write();
  } catch (error) {
    if (!isFull(error) || from?.makeRoom === undefined) throw error;
    await from.makeRoom();
    return write();
  }
}

function isFull(error: unknown): boolean {
  return error instanceof PullError && error.code === 'store-full';
}

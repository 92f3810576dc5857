import { type StatsFs, statfsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { statFile } from '../files/open-file.js';
import { systemCode, wrapFsError, wrapFsErrorAsync } from '../files/storage-error.js';
import { PullError } from '../format/error.js';

/**
 * What is always left on the file system of the store: a fiftieth of it, 256 MiB at the most. With it, logs and other programs go on
 * working, and so does `zpull store prune`. More would keep those from pulling whose disks are nearly full and stay so.
 */
const LEFT_SHARE = 1 / 50;
const MOST_LEFT_BYTES = 256 * 2 ** 20;

/** Bytes written between two questions, which take some microseconds; less where the room is nearly used up. */
const MOST_UNASKED_BYTES = 16 * 2 ** 20;
const LEAST_UNASKED_BYTES = 64 * 1024;
/** Each of 16 threads may write so much of what is left before it asks again. */
const UNASKED_SHARE = 1 / 16;

/** What must stay free on a file system of so many bytes. */
function leftFreeBytes(totalBytes: number): number {
  return Math.min(MOST_LEFT_BYTES, Math.floor(totalBytes * LEFT_SHARE));
}

/** Makes sure that one writer leaves some room on the disk. */
export class FreeRoom {
  readonly #directory: string;
  #unaskedBytes = 0;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** So many bytes are about to be written. @throws PullError `store-full` when they would not leave enough room */
  use(bytes: number): void {
    this.#unaskedBytes -= bytes;
    if (this.#unaskedBytes < 0) this.#unaskedBytes = this.#ask(bytes);
  }

  #ask(bytes: number): number {
    const space = spaceIn(this.#directory);
    if (space === undefined) return MOST_UNASKED_BYTES;
    const leftBytes = leftFreeBytes(space.totalBytes);
    const roomBytes = space.freeBytes - bytes - leftBytes;
    if (roomBytes >= 0)
      return Math.max(LEAST_UNASKED_BYTES, Math.min(MOST_UNASKED_BYTES, roomBytes * UNASKED_SHARE));
    throw new PullError(
      'store-full',
      `${this.#directory} has ${space.freeBytes} bytes free, of which ${leftBytes} are a reserve for other programs`,
      {
        hint: 'Free some space there, or choose another place with --store; what was fetched so far is kept.',
      },
    );
  }
}

/** Size and free room of a file system, in bytes. */
interface Space {
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/** What `statfs` says of a file system. Undefined where it states no size, as some network and FUSE file systems do. */
function spaceOf({ blocks, bfree, bavail, bsize }: StatsFs): Space | undefined {
  if (blocks === 0) return undefined;
  // Only root may use what is reserved.
  return { totalBytes: bsize * blocks, freeBytes: bsize * (process.geteuid?.() === 0 ? bfree : bavail) };
}

/** As `spaceOf`, and undefined where the system does not answer: a write that fails says what is wrong. */
function spaceIn(directory: string): Space | undefined {
  try {
    return spaceOf(statfsSync(directory));
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
    return undefined;
  }
}

/** File systems that compress, by `statfs().type` (linux/magic.h, OpenZFS, bcachefs): they hold more than they have room for. */
const COMPRESSING: readonly number[] = [0x9123683e, 0x2fc12fc1, 0xca451a4e];

/**
 * Asks for `neededBytes` of free space in a directory before anything is fetched. It is advice: others write to the same disk.
 * `leavesRoom`: what `FreeRoom` leaves to others does not count as free.
 * @throws PullError `store-full`, naming how many bytes are missing
 */
export async function requireSpace(
  directory: string,
  neededBytes: number,
  leavesRoom = false,
): Promise<void> {
  const freeBytes = neededBytes === 0 ? undefined : await freeBytesOf(directory, leavesRoom);
  if (freeBytes === undefined || freeBytes >= neededBytes) return;
  const missing = neededBytes - freeBytes;
  const free = leavesRoom ? `${freeBytes} free, without a reserve for other programs` : `${freeBytes} free`;
  throw new PullError(
    'store-full',
    `${directory} needs ${neededBytes} bytes and has ${free}: ${missing} bytes are missing`,
    { hint: 'Free some space there, or choose another place with --store.' },
  );
}

/**
 * Bytes that can be written in a directory when `storeBytes` more have been written to the store, and `FreeRoom` leaves its reserve;
 * infinite where that is not known. Below 0 when the store alone needs more.
 */
export async function spareBytes(directory: string, store: string, storeBytes: number): Promise<number> {
  const freeBytes = await freeBytesOf(directory, true);
  if (freeBytes === undefined) return Number.POSITIVE_INFINITY;
  return (await shareRoom(directory, store)) ? freeBytes - storeBytes : freeBytes;
}

/** Whether two directories may be on one file system. Subvolumes have device numbers of their own, and the size of the whole. */
async function shareRoom(one: string, other: string): Promise<boolean> {
  const [a, b] = await wrapFsErrorAsync(`look at ${one}`, () => Promise.all([statfs(one), statfs(other)]));
  return a.type === b.type && a.bsize === b.bsize && a.blocks === b.blocks;
}

/**
 * Room on the disk that a file has, 0 if it is not there (POSIX.1-2017, sys/stat.h: blocks of 512 bytes).
 * @throws PullError as `storageError`
 */
export function allocatedBytes(path: string): number {
  const stat = wrapFsError(`look at ${path}`, () => statFile(path));
  return (stat?.blocks ?? 0) * 512;
}

/** What this user can write there. Undefined where that is not known; a write that fails says what is wrong. */
async function freeBytesOf(directory: string, leavesRoom: boolean): Promise<number | undefined> {
  try {
    const stats = await statfs(directory);
    const space = COMPRESSING.includes(stats.type) ? undefined : spaceOf(stats);
    if (space === undefined) return undefined;
    return leavesRoom ? Math.max(0, space.freeBytes - leftFreeBytes(space.totalBytes)) : space.freeBytes;
  } catch (error) {
    if (systemCode(error) === undefined) throw error;
    return undefined;
  }
}

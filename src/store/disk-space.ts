import { statfs } from 'node:fs/promises';
import { statFile } from '../files/open-file.js';
import { systemCode, wrapFsError } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import { leftFreeBytes, spaceOf } from './free-room.js';

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

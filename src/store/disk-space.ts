import { statfs } from 'node:fs/promises';
import { PullError } from '../format/error.js';
import { onDiskAsync } from './storage-error.js';

/**
 * Asks for `neededBytes` of free space in a directory before anything is fetched. It is advice: others write to the same disk. A file
 * system that states no size (some network and FUSE ones) is not asked.
 * @throws PullError `store-full`, naming how many bytes are missing
 */
export async function requireSpace(directory: string, neededBytes: number): Promise<void> {
  const { bavail, blocks, bsize } = await onDiskAsync(`ask for the free space of ${directory}`, () =>
    statfs(directory),
  );
  const freeBytes = bavail * bsize;
  if (blocks === 0 || freeBytes >= neededBytes) return;
  const missing = neededBytes - freeBytes;
  throw new PullError(
    'store-full',
    `${directory} needs ${neededBytes} bytes and has ${freeBytes} free: ${missing} bytes are missing`,
    { hint: 'Free some space there, or choose another place with --store.' },
  );
}

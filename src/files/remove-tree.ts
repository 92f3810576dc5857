import { chmodSync, lstatSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { BLOCK_BYTES } from './disk-space.js';
import { systemCode } from './storage-error.js';

/**
 * Deletes a file or directory with all that is in it, also in directories that are read-only, as in
 * the files of an image. What is absent is no error.
 * @throws the system's own errors
 */
export function removeTree(path: string): void {
  const remove = () => rmSync(path, { recursive: true, force: true, maxRetries: 2 });
  try {
    remove();
  } catch (error) {
    if (!['EACCES', 'EPERM'].includes(systemCode(error) ?? '')) throw error;
    eachEntry(path, (entry, { isDirectory }) => {
      if (isDirectory) chmodSync(entry, 0o700);
    });
    remove();
  }
}

/** Returns the disk space of a directory and all that is in it, in bytes. @throws the system's own errors */
export function treeBytes(path: string): number {
  let bytes = 0;
  eachEntry(path, (_, { blocks }) => {
    bytes += blocks * BLOCK_BYTES;
  });
  return bytes;
}

interface Entry {
  readonly isDirectory: boolean;
  readonly blocks: number;
}

/** Calls `use` with a path, and then with all below it. Follows no links. */
function eachEntry(path: string, use: (path: string, entry: Entry) => void): void {
  const stat = lstatSync(path);
  const isDirectory = stat.isDirectory();
  use(path, { isDirectory, blocks: stat.blocks });
  if (isDirectory) for (const name of readdirSync(path)) eachEntry(join(path, name), use);
}

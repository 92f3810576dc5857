import { chmodSync, lstatSync, rmdirSync, statSync, unlinkSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { OpenDirectory } from './open-directory.js';
import { systemCode } from './storage-error.js';

/** PATH_MAX (4096 bytes) allows no deeper path, and each level holds a descriptor. */
const MAX_DEPTH = 2048;
/** Entries removed before yielding to the event loop: some milliseconds. */
const ENTRIES_A_TURN = 100;

const ALL_OF_OWNER = 0o700;

/**
 * Removes an entry of a directory and everything below it; an absent entry is no error. Links are
 * removed, never followed: a directory that is replaced by a link meanwhile is removed as a link,
 * or the removal fails.
 * @throws the system's error for an entry that cannot be removed
 */
export async function removeAt(parent: OpenDirectory, name: string | Buffer, depth = 0): Promise<void> {
  if (unlinked(parent, name)) return;
  if (depth >= MAX_DEPTH) throw Object.assign(new Error(parent.path), { code: 'ENAMETOOLONG' });
  const directory = parent.open(name);
  try {
    await emptyDirectory(directory, depth + 1);
  } finally {
    directory.close();
  }
  rmdirSync(parent.at(name));
}

/**
 * Removes every entry of a directory, as `removeAt`. Adds missing permissions of the owner first.
 */
export async function emptyDirectory(directory: OpenDirectory, depth = 0): Promise<void> {
  const { mode, uid } = statSync(directory.self);
  const isClosed = (mode & ALL_OF_OWNER) !== ALL_OF_OWNER;
  if (isClosed && uid === process.geteuid?.()) chmodSync(directory.self, ALL_OF_OWNER);
  for (const [done, name] of directory.names.entries()) {
    if (done % ENTRIES_A_TURN === 0) await nextTurn();
    await removeAt(directory, name, depth);
  }
}

/** Removes anything but a directory. Returns true if it did or if nothing was there. */
function unlinked(parent: OpenDirectory, name: string | Buffer): boolean {
  const path = parent.at(name);
  try {
    unlinkSync(path);
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT') return true;
    // unlink of a directory fails with EISDIR on Linux and with EPERM elsewhere (POSIX).
    if (code === 'EISDIR' || (code === 'EPERM' && lstatSync(path).isDirectory())) return false;
    throw error;
  }
  return true;
}

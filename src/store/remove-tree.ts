import { chmodSync, lstatSync, rmdirSync, statSync, unlinkSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { systemCode } from '../files/storage-error.js';
import type { OpenDirectory } from './open-directory.js';

/** No path that a system call takes leads deeper (PATH_MAX is 4096 bytes), and each level holds a descriptor. */
const MAX_DEPTH = 2048;
/** Entries removed before other work has its turn: some milliseconds. */
const ENTRIES_A_TURN = 100;

const ALL_OF_OWNER = 0o700;

/**
 * Removes what has a name in a directory, whatever it is, with all that is in it. Links are removed, never followed; a directory that is
 * swapped for a link meanwhile is removed as that link, or ends the removal. What is not there is removed already.
 * @throws the system's error for what cannot be removed
 */
export async function removeAt(parent: OpenDirectory, name: string | Buffer, depth = 0): Promise<void> {
  if (unlinked(parent, name)) return;
  if (depth >= MAX_DEPTH) throw Object.assign(new Error(parent.path), { code: 'ENAMETOOLONG' });
  const directory = parent.open(name);
  try {
    await emptyCached(directory, depth + 1);
  } finally {
    directory.close();
  }
  rmdirSync(parent.at(name));
}

/** Removes all that is in a directory, as `removeAt`. A directory of this user that is closed to them is opened. */
export async function emptyCached(directory: OpenDirectory, depth = 0): Promise<void> {
  const { mode, uid } = statSync(directory.self);
  const isClosed = (mode & ALL_OF_OWNER) !== ALL_OF_OWNER;
  if (isClosed && uid === process.geteuid?.()) chmodSync(directory.self, ALL_OF_OWNER);
  for (const [done, name] of directory.names.entries()) {
    if (done % ENTRIES_A_TURN === 0) await nextTurn();
    await removeAt(directory, name, depth);
  }
}

/** Removes all but a directory; returns whether it did, or nothing was there. */
function unlinked(parent: OpenDirectory, name: string | Buffer): boolean {
  const path = parent.at(name);
  try {
    unlinkSync(path);
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT') return true;
    // Linux says EISDIR of a directory, POSIX EPERM.
    if (code === 'EISDIR' || (code === 'EPERM' && lstatSync(path).isDirectory())) return false;
    throw error;
  }
  return true;
}

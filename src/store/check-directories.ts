import { type Stats, statSync } from 'node:fs';
import { statName, UnfitFile } from '../files/open-file.js';
import { ifExists, wrapFsError } from '../files/storage-error.js';
import { PullError } from '../format/error.js';

/** The right of others to write, in a mode (POSIX.1-2017, sys/stat.h: S_IWOTH). */
const WRITABLE_BY_ALL = 0o002;

/**
 * Looks at the directories of the store under `root`, itself one of them, as far as they are there. A user who may write in one can put
 * anything there, and take any file away. The group is trusted, as umask 002 gives it that right in many home directories, and so is
 * root, who may do everything.
 * @param warn is called, at most once, with a sentence about other users who own some of them
 * @returns those that are there
 * @throws PullError `store-broken` for a link, but for the root, and for what is no directory; `store-denied` where everybody may write;
 *   else as `storageError`
 */
export function checkDirectories(
  root: string,
  directories: readonly string[],
  warn: (message: string) => void,
): ReadonlySet<string> {
  const found = new Map<string, Stats>();
  for (const path of directories) {
    const stat = path === root ? statRoot(root) : wrapFsError(`look at ${path}`, () => statName(path));
    if (stat === undefined) continue;
    if (!stat.isDirectory()) throw new UnfitFile(path, 'is a link or no directory');
    found.set(path, stat);
  }
  // Windows has neither these modes nor owners in them.
  if (process.geteuid !== undefined) checkOwners(root, found, process.geteuid(), warn);
  return new Set(found.keys());
}

function statRoot(root: string): Stats | undefined {
  return ifExists(`look at ${root}`, () => statSync(root));
}

function checkOwners(
  root: string,
  found: ReadonlyMap<string, Stats>,
  own: number,
  warn: (message: string) => void,
): void {
  const others = new Set<number>();
  for (const [path, { mode, uid }] of found) {
    if ((mode & WRITABLE_BY_ALL) !== 0) {
      throw new PullError('store-denied', `every user of this machine may write in ${path}`, {
        hint: `Take that right away (chmod o-w ${path}), or choose another place with --store.`,
      });
    }
    if (uid !== own && uid !== 0) others.add(uid);
  }
  if (others.size === 0) return;
  const users = [...others].map((uid) => `user ${uid}`).join(', ');
  warn(`the store ${root} belongs to ${users}, who can change what it holds`);
}

import { chmodSync, chownSync, statSync, utimesSync } from 'node:fs';
import type { OpenDirectory } from '../files/open-directory.js';
import { wrapFsError } from '../files/storage-error.js';
import type { Abilities } from '../pool/messages.js';
import { isPrivileged, modeFor, ownerFor } from './abilities.js';
import { type FileTree, fileTime, isRoot } from './file-tree.js';
import { closeToOthers, type RootfsPlace, restore } from './rootfs-place.js';

/** What a root directory is like that no layer states. */
const ROOT_MODE = 0o755;

const SEARCH = 0o011;

const DANGERS = 'the devices, set-user-ID programs or programs with capabilities in the image';

/**
 * Gives the root directory the mode, owner and time that the image states, else those that it had; when all below it is done and
 * proven. What root exports stays closed to other users where they could reach devices, set-user-ID programs or the like, unless
 * the user insists on a directory that is there (`force`).
 * @returns a sentence on why it is closed, if it is
 * @throws PullError as `storageError`
 */
export function finishRoot(
  { root, before, isEmpty }: RootfsPlace,
  tree: FileTree,
  abilities: Abilities,
  force: boolean,
): string | undefined {
  const states = tree.count > 0 && isRoot(tree, 0);
  const uid = states ? tree.uid[0]! : (before?.uid ?? abilities.uid);
  const mode = states ? modeFor(tree, 0, abilities) : (before?.mode ?? ROOT_MODE);
  const opensToOthers = uid !== 0 || (mode & SEARCH) !== 0;
  const mayStayClosed = abilities.owners && opensToOthers && (before === undefined || !force);
  const isDangerous = mayStayClosed && othersReach(root) && hasPrivileged(tree, abilities);
  const isClosed = isDangerous && closeToOthers(root);
  wrapFsError(`finish ${root.path}`, () => {
    if (states) {
      const owner = ownerFor(tree, 0, abilities);
      if (owner !== undefined && !isClosed) chownSync(root.self, owner.uid, owner.gid);
      if (!isClosed) chmodSync(root.self, mode);
      const time = fileTime(tree.mtimeSeconds[0]!, tree.mtimeNanos[0]!);
      utimesSync(root.self, time, time);
    } else if (isClosed) return;
    else if (before === undefined) chmodSync(root.self, ROOT_MODE);
    else if (isEmpty) restore(root, before);
  });
  if (!isDangerous) return undefined;
  return isClosed
    ? `the directory stays closed to other users (mode 700), who could reach ${DANGERS}; open it with chmod ${(mode & 0o7777).toString(8)}`
    : `other users can reach ${DANGERS}, as the directory cannot be closed to them`;
}

function hasPrivileged(tree: FileTree, abilities: Abilities): boolean {
  for (let row = 0; row < tree.count; row++) if (isPrivileged(tree, row, abilities)) return true;
  return false;
}

/** Whether other users than root may search all directories around one. */
function othersReach({ self }: OpenDirectory): boolean {
  let below: { readonly dev: bigint; readonly ino: bigint } | undefined;
  for (let path = `${self}/..`; ; path += '/..') {
    const { uid, mode, dev, ino } = statSync(path, { bigint: true });
    if (uid === 0n && (Number(mode) & SEARCH) === 0) return false;
    // The directory above the root of all is itself.
    if (below?.ino === ino && below.dev === dev) return true;
    below = { dev, ino };
  }
}

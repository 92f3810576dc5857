import { chmodSync, chownSync, type Stats, statSync, utimesSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { makeOpenDirectory, OpenDirectory } from '../files/open-directory.js';
import { emptyDirectory } from '../files/remove-tree.js';
import { storageError, systemCode, wrapFsError } from '../files/storage-error.js';
import type { Abilities } from '../pool/messages.js';
import { isPrivileged, modeFor, ownerFor } from './abilities.js';
import { notEmpty } from './destination-checks.js';
import { type FileTree, fileTime, isRoot } from './file-tree.js';
import { UnfinishedDirectory } from './unfinished.js';

/** For its owner alone. */
const PRIVATE_MODE = 0o700;

/** How a system says that a directory keeps its owner and mode: it is another user's, or its file system has none. */
const FORBIDDEN: readonly string[] = ['EPERM', 'EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'];

/** Where a root file system goes, held open from before its first byte until after its last. */
export interface RootfsTarget {
  readonly root: OpenDirectory;
  /** What the directory was before, if it was there. */
  readonly before: Stats | undefined;
  /** Whether nothing was in it. */
  readonly isEmpty: boolean;
  /** Gives a new directory its name. @throws PullError as `storageError`; `store-broken` when another user took its place */
  publish(): Promise<void>;
  /** Takes away what was written, as far as it can be and nothing was there before; no thread writes any more. */
  discard(): Promise<void>;
  close(): void;
}

/**
 * Holds the directory that a root file system is written into. One that is not there is made beside its place under an unfinished
 * name; one that is empty is for this user alone until `finishRoot`.
 * @throws PullError `option-malformed` when something is in it, unless `force` allows it; as `storageError`
 */
export async function openRootfsTarget(
  path: string,
  isAbsent: boolean,
  force: boolean,
): Promise<RootfsTarget> {
  return isAbsent ? newTarget(path) : existingTarget(path, force);
}

async function newTarget(path: string): Promise<RootfsTarget> {
  const parent = wrapFsError(`make the directory ${dirname(path)}`, () => makeOpenDirectory(dirname(path)));
  try {
    const unfinished = await UnfinishedDirectory.create(parent, basename(path));
    return {
      root: unfinished.held,
      before: undefined,
      isEmpty: true,
      publish: () => unfinished.publish(),
      discard: () => unfinished.discard(),
      close: () => {
        unfinished.held.close();
        parent.close();
      },
    };
  } catch (error) {
    parent.close();
    throw error;
  }
}

function existingTarget(path: string, force: boolean): RootfsTarget {
  const root = wrapFsError(`open ${path}`, () => OpenDirectory.hold(path));
  try {
    const isEmpty = wrapFsError(`stat ${path}`, () => root.names).length === 0;
    // Looked at again, now that it stays the same one.
    if (!isEmpty && !force) throw notEmpty(path);
    const before = wrapFsError(`stat ${path}`, () => statSync(root.self));
    if (isEmpty) closeToOthers(root);
    return {
      root,
      before,
      isEmpty,
      publish: async () => {},
      discard: async () => {
        if (!isEmpty) return;
        // Where others may write, it is not only ours what is there.
        if (root.isPrivate) await emptyDirectory(root).catch(() => {});
        restore(root, before);
      },
      close: () => root.close(),
    };
  } catch (error) {
    root.close();
    throw error;
  }
}

/** Makes a directory one of this user alone; returns whether that could be. @throws PullError as `storageError` */
function closeToOthers({ self, path }: OpenDirectory): boolean {
  return unlessForbidden(path, () => {
    if (process.geteuid?.() === 0) setOwner(self, 0, 0);
    chmodSync(self, PRIVATE_MODE);
  });
}

/** Gives a directory its owner and mode back. @throws PullError as `storageError` */
function restore({ self, path }: OpenDirectory, { uid, gid, mode }: Stats): void {
  unlessForbidden(path, () => {
    if (process.geteuid?.() === 0) setOwner(self, uid, gid);
    chmodSync(self, mode & 0o7777);
  });
}

/** Only where it changes something: not every file system has owners. */
function setOwner(self: Buffer, uid: number, gid: number): void {
  const now = statSync(self);
  if (now.uid !== uid || now.gid !== gid) chownSync(self, uid, gid);
}

/** Returns whether this user could do the action here: a directory that others own may be written to all the same. */
function unlessForbidden(path: string, action: () => void): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if (FORBIDDEN.includes(systemCode(error) ?? '')) return false;
    throw storageError(error, `change the mode of ${path}`);
  }
}

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
  { root, before, isEmpty }: RootfsTarget,
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

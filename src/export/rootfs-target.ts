import { chmodSync, chownSync, type Stats, statSync, utimesSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { emptyDirectory, makeOpenDirectory, OpenDirectory } from '../files/open-directory.js';
import { storageError, systemCode, wrapFsError } from '../files/storage-error.js';
import type { Abilities } from '../pool/messages.js';
import { isPrivileged, modeFor, ownerFor, someRow } from './abilities.js';
import { notEmpty } from './export-schemes.js';
import { type FileTree, fileTime, isRoot } from './file-tree.js';
import { UnfinishedDirectory } from './output-files.js';

/** Access for the owner alone. */
const PRIVATE_MODE = 0o700;

/** Error codes of a change of owner or mode that this user or the file system cannot make. */
const FORBIDDEN: readonly string[] = ['EPERM', 'EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'];

/** Mode of a root directory without an entry. */
const ROOT_MODE = 0o755;

const SEARCH = 0o011;

const DANGERS = 'the devices, set-user-ID programs or programs with capabilities in the image';

/** The directory that a root file system is written to, open during the whole export. */
export interface RootfsTarget {
  readonly root: OpenDirectory;
  /** Owner, mode and times before the export; undefined for a new directory. */
  readonly before: Stats | undefined;
  /** Whether it had no entries. */
  readonly isEmpty: boolean;
  /** Gives a new directory its name.
   * @throws PullError as `storageError`; `store-broken` when another user took its place */
  publish(): Promise<void>;
  /**
   * Removes what was written, as far as possible, if it was empty; to be called when no thread
   * writes.
   */
  discard(): Promise<void>;
  close(): void;
}

/**
 * Opens the directory that a root file system is written to. A new one is created under an
 * unfinished name beside its path; an empty one is closed to other users until `finishRoot`.
 * @throws PullError `option-malformed` when it has entries, unless `force` allows it; as
 *   `storageError`
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
      root: unfinished.opened,
      before: undefined,
      isEmpty: true,
      publish: () => unfinished.publish(),
      discard: () => unfinished.discard(),
      close: () => {
        unfinished.opened.close();
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
    // Checked again, now that the directory is open and cannot be replaced.
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
        // If others may write to it, they may own entries.
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

/** Closes a directory to other users; returns false if forbidden.
 * @throws PullError as `storageError` */
function closeToOthers({ self, path }: OpenDirectory): boolean {
  return unlessForbidden(path, () => {
    if (process.geteuid?.() === 0) setOwner(self, 0, 0);
    chmodSync(self, PRIVATE_MODE);
  });
}

/** Restores owner and mode of a directory. @throws PullError as `storageError` */
function restore({ self, path }: OpenDirectory, { uid, gid, mode }: Stats): void {
  unlessForbidden(path, () => {
    if (process.geteuid?.() === 0) setOwner(self, uid, gid);
    chmodSync(self, mode & 0o7777);
  });
}

/** Does nothing if the owner is right: some file systems have no owners. */
function setOwner(self: Buffer, uid: number, gid: number): void {
  const now = statSync(self);
  if (now.uid !== uid || now.gid !== gid) chownSync(self, uid, gid);
}

/**
 * Returns false if this user may not do the action: a directory may be writable but owned by
 * others.
 */
function unlessForbidden(path: string, action: () => void): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if (FORBIDDEN.includes(systemCode(error) ?? '')) return false;
    throw storageError(error, `change the mode of ${path}`);
  }
}

/**
 * Sets mode, owner and time of the root directory to those of the image, or to what they were
 * before. To be called when everything below it is finished and proven. An export of root stays
 * closed to other users who could reach devices, set-user-ID programs or the like, except in an
 * existing directory with `force`.
 * @returns a warning if it stays closed, or should but cannot
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
  const isDangerous =
    mayStayClosed && othersReach(root) && someRow(tree, (row) => isPrivileged(tree, row, abilities));
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

/** Returns whether users other than root can reach a directory through its parents. */
function othersReach({ self }: OpenDirectory): boolean {
  let below: { readonly dev: bigint; readonly ino: bigint } | undefined;
  for (let path = `${self}/..`; ; path += '/..') {
    const { uid, mode, dev, ino } = statSync(path, { bigint: true });
    if (uid === 0n && (Number(mode) & SEARCH) === 0) return false;
    // The parent of the root directory is itself.
    if (below?.ino === ino && below.dev === dev) return true;
    below = { dev, ino };
  }
}

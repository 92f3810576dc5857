import { chmodSync, chownSync, type Stats, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { makeOpenDirectory, OpenDirectory } from '../files/open-directory.js';
import { emptyDirectory } from '../files/remove-tree.js';
import { storageError, systemCode, wrapFsError } from '../files/storage-error.js';
import { notEmpty } from './destination.js';
import { UnfinishedDirectory } from './unfinished.js';

/** For its owner alone. */
const PRIVATE_MODE = 0o700;

/** How a system says that a directory keeps its owner and mode: it is another user's, or its file system has none. */
const FORBIDDEN: readonly string[] = ['EPERM', 'EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'];

/** Where a root file system goes, held open from before its first byte until after its last. */
export interface RootfsPlace {
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
export async function takePlace(path: string, isAbsent: boolean, force: boolean): Promise<RootfsPlace> {
  return isAbsent ? newPlace(path) : existingPlace(path, force);
}

async function newPlace(path: string): Promise<RootfsPlace> {
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

function existingPlace(path: string, force: boolean): RootfsPlace {
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
export function closeToOthers({ self, path }: OpenDirectory): boolean {
  return unlessForbidden(path, () => {
    if (process.geteuid?.() === 0) setOwner(self, 0, 0);
    chmodSync(self, PRIVATE_MODE);
  });
}

/** Gives a directory its owner and mode back. @throws PullError as `storageError` */
export function restore({ self, path }: OpenDirectory, { uid, gid, mode }: Stats): void {
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

import { constants, ftruncateSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { inspect, requireDirectory } from '../export/export-schemes.js';
import {
  createAtomically,
  moveFile,
  removeFile,
  removeFileSync,
  writeAtomically,
} from '../files/atomic-file.js';
import { followLinks } from '../files/follow-links.js';
import { guardPath, listNames, makeGuarded, withGuarded } from '../files/guarded-directory.js';
import { readFile, statFile } from '../files/open-file.js';
import { findOwnFile, makeOwnFile, type OwnFile, withOwnFile } from '../files/own-file.js';
import { ifExists, wrapFsError } from '../files/storage-error.js';
import { joinRanges } from '../format/arrays.js';
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { MAX_INDEX_BYTES } from '../pull/layout-files.js';
import { nameInIndex, OCI_LAYOUT } from '../pull/oci-layout.js';
import type { CopyTarget, TargetOptions } from './copy-blobs.js';
import type { CopySource } from './copy-source.js';
import { type DestinationLock, LOCK_DIRECTORY, lockDestination } from './layout-lock.js';
import { RangeJournal } from './range-journal.js';

/**
 * Opens an OCI layout in a directory, created if it is missing, for one copy at a time. Blobs are
 * fetched into `HEX.part`, with a journal in `HEX.part.ranges`.
 * @throws PullError the reason of a stop; `option-malformed` as `followLinks`; as `storageError`
 */
export async function openLayoutTarget(
  directory: string,
  { tag, stop, onWait }: TargetOptions,
): Promise<CopyTarget> {
  const root = inspect(directory, () => followLinks(directory));
  const blobs = guardPath(root, 'blobs', 'sha256');
  const lock = await lockDestination(join(root, LOCK_DIRECTORY), stop, onWait);
  const { owner, close } = lock;
  const pathOf = (digest: Digest) => join(blobs, digestHex(digest));
  const partOf = (digest: Digest) => `${pathOf(digest)}.part`;
  const journalOf = (digest: Digest) => new RangeJournal(`${partOf(digest)}.ranges`, digest, owner);

  const target: CopyTarget = {
    directory: root,
    async locate(digest, sizeBytes) {
      const found = wrapFsError(`stat ${pathOf(digest)}`, () => statFile(pathOf(digest)));
      const location = { digest, sizeBytes, start: 0 };
      if (found?.size === sizeBytes)
        return { ...location, path: pathOf(digest), isPresent: true, written: [] };
      const part = wrapFsError(`open ${partOf(digest)}`, () => findOwnFile(partOf(digest), owner));
      const written = part === undefined ? [] : journalOf(digest).read();
      const inside = joinRanges(written.filter(({ end }) => end <= sizeBytes));
      return { ...location, path: partOf(digest), isPresent: false, written: inside };
    },
    open: (blobs) =>
      blobs.map((location) => {
        const file = makeFile(location.path, location.sizeBytes, owner);
        const journal = journalOf(location.digest);
        const known = location.written.length === 0 ? undefined : journal.find();
        return { ...location, file, journal: known ?? journal.begin() };
      }),
    async discard({ digest, sizeBytes, path, isPresent }) {
      journalOf(digest).remove();
      if (isPresent) await removeFile(path);
      return target.locate(digest, sizeBytes);
    },
    async publish({ digest, file }) {
      await moveOwnFile(file, pathOf(digest));
      journalOf(digest).remove();
    },
    async finish(source) {
      while (!(await finishUnderLock(source))) {
        await lock.reacquire();
        await clear();
      }
    },
    close,
  };
  /**
   * Returns false when the lock is lost: then another copy may have begun, which deletes temporary
   * files.
   */
  const finishUnderLock = async ({ documents, root: named }: CopySource): Promise<boolean> => {
    try {
      for (const { digest, bytes } of documents) await writeAtomically(pathOf(digest), bytes, false);
      await writeAtomically(join(root, 'oci-layout'), OCI_LAYOUT, false);
      return await nameImage(join(root, 'index.json'), lock, (before) => nameInIndex(before, named, tag));
    } catch (error) {
      if (lock.isHeld()) throw error;
      return false;
    }
  };
  const clear = async () => {
    for (const path of [root, blobs]) await removeTemporary(path);
  };
  try {
    wrapFsError(`make the layout ${root}`, () => makeGuarded(blobs));
    await clear();
  } catch (error) {
    close();
    throw error;
  }
  return target;
}

/**
 * Replaces index.json under the lock. Creates the temporary file first, then checks the lock, then
 * reads the old index. A copy that acquires the lock after the check deletes the temporary file
 * before it reads the index: then the rename fails, and neither copy loses the other's tag. The
 * index is synced, as it also names other images; blobs are not, as the next copy into the layout
 * hashes them.
 * @returns false when the lock is lost
 * @throws PullError as `storageError`, also when the lock is lost
 */
async function nameImage(
  index: string,
  lock: Pick<DestinationLock, 'isHeld'>,
  nameIn: (before: Buffer | undefined) => Buffer,
): Promise<boolean> {
  const unfinished = await createAtomically(index);
  try {
    if (!lock.isHeld()) return false;
    const before = ifExists(`read ${index}`, () =>
      withGuarded(index, (at) => readFile(index, MAX_INDEX_BYTES, at)),
    );
    await unfinished.publish(nameIn(before), true);
    return true;
  } finally {
    await unfinished.discard();
  }
}

/** Whether a name belongs to a layout that a killed or running copy has begun. */
const isBegun = (name: string) =>
  ['blobs', LOCK_DIRECTORY].includes(name) || /^oci-layout\.[0-9a-f]+\.tmp$/.test(name);

/**
 * Deletes temporary files of a killed copy, except parts of blobs, which are resumed.
 * @throws PullError as `storageError`
 */
async function removeTemporary(directory: string): Promise<void> {
  const isUnfinished = (name: string) =>
    /^([0-9a-f]{64}|index\.json|oci-layout)\.[0-9a-f]{16}\.tmp$/.test(name);
  const names = wrapFsError(`stat ${directory}`, () => listNames(directory, isUnfinished));
  for (const name of names) await removeFile(join(directory, name));
}

/**
 * Checks that a copy may write a layout to this directory.
 * @throws PullError `option-malformed` for a directory with other files, or a file; as
 *   `storageError`
 */
export function requireLayout(directory: string): void {
  if (!requireDirectory(directory)) return;
  const names = inspect(directory, () => readdirSync(directory));
  if (names.includes('oci-layout') || names.every(isBegun)) return;
  throw new PullError('option-malformed', `${directory} is not empty and is no OCI layout`, {
    hint: 'name a layout, an empty directory or a new one',
  });
}

/**
 * Creates a sparse file of this length. A file of `owner` keeps its bytes; any other file is
 * replaced.
 * @throws PullError as `storageError`
 */
export function makeFile(path: string, sizeBytes: number, owner: number): OwnFile {
  return wrapFsError(`make ${path}`, () => {
    const found = findOwnFile(path, owner);
    if (found === undefined) {
      removeFileSync(path);
      return makeOwnFile(path, (fd) => ftruncateSync(fd, sizeBytes));
    }
    withOwnFile(found, constants.O_WRONLY, (fd) => ftruncateSync(fd, sizeBytes));
    return found;
  });
}

/** Renames a file, if it is still the one that was created. @throws PullError as `storageError` */
export async function moveOwnFile(file: OwnFile, to: string): Promise<void> {
  wrapFsError(`open ${file.path}`, () => withOwnFile(file, constants.O_RDONLY, () => {}));
  await moveFile(file.path, to);
}

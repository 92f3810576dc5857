import { constants, ftruncateSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { inspect, requireDirectory } from '../export/destination-checks.js';
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
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { joinRanges } from '../format/ranges.js';
import { MAX_INDEX_BYTES, nameInIndex, OCI_LAYOUT } from '../pull/layout-index.js';
import type { CopyTarget, TargetOptions } from './copy-blobs.js';
import type { CopySource } from './copy-source.js';
import { type DestinationLock, LOCK_DIRECTORY, lockDestination } from './layout-lock.js';
import { RangeJournal } from './range-journal.js';

/**
 * An OCI layout in a directory, made if it is not there, for one copy at a time. Blobs are fetched into `HEX.part`, with
 * `HEX.part.ranges` beside it.
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
    async place(digest, sizeBytes) {
      const held = wrapFsError(`stat ${pathOf(digest)}`, () => statFile(pathOf(digest)));
      const place = { digest, sizeBytes, start: 0 };
      if (held?.size === sizeBytes) return { ...place, path: pathOf(digest), held: true, written: [] };
      const part = wrapFsError(`open ${partOf(digest)}`, () => findOwnFile(partOf(digest), owner));
      const written = part === undefined ? [] : journalOf(digest).read();
      const inside = joinRanges(written.filter(({ end }) => end <= sizeBytes));
      return { ...place, path: partOf(digest), held: false, written: inside };
    },
    make: (places) =>
      places.map((place) => {
        const file = makeFile(place.path, place.sizeBytes, owner);
        const journal = journalOf(place.digest);
        const known = place.written.length === 0 ? undefined : journal.find();
        return { ...place, file, journal: known ?? journal.begin() };
      }),
    async forget({ digest, sizeBytes, path, held }) {
      journalOf(digest).remove();
      if (held) await removeFile(path);
      return target.place(digest, sizeBytes);
    },
    async keep({ digest, file }) {
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
  /** False when the lock is lost: another copy may have begun then, and deletes what is on its way to its name. */
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
 * Replaces index.json, under the lock. The new one is there, under another name, before the lock is looked at and the old one is read. Another
 * copy that takes the lock after that look deletes it before it reads the old one: then the rename fails, and none of the two loses the
 * other's tag. It survives a power cut, as it names other images, too; blobs are hashed by the next copy into the layout.
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

/** What there may be before there is a layout: a copy that was killed left it, or one that still runs. */
const isBegun = (name: string) =>
  ['blobs', LOCK_DIRECTORY].includes(name) || /^oci-layout\.[0-9a-f]+\.tmp$/.test(name);

/** Deletes what a killed copy has left on the way to its name. A blob's parts are of use, and stay. @throws PullError as `storageError` */
async function removeTemporary(directory: string): Promise<void> {
  const isUnfinished = (name: string) =>
    /^([0-9a-f]{64}|index\.json|oci-layout)\.[0-9a-f]{16}\.tmp$/.test(name);
  const names = wrapFsError(`stat ${directory}`, () => listNames(directory, isUnfinished));
  for (const name of names) await removeFile(join(directory, name));
}

/**
 * A directory of other things must not become a layout by accident.
 * @throws PullError `option-malformed` for one, and for what is no directory; as `storageError`
 */
export function requireLayout(directory: string): void {
  if (!requireDirectory(directory)) return;
  const names = inspect(directory, () => readdirSync(directory));
  if (names.includes('oci-layout') || names.every(isBegun)) return;
  throw new PullError('option-malformed', `${directory} is not empty and is no OCI layout`, {
    hint: 'name a layout, an empty directory or one that is not there',
  });
}

/**
 * A sparse file of this length. One that belongs to `owner` keeps its bytes; whatever else has its name gives way.
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

/** Renames the file that was made, and no other that has its name by now. @throws PullError as `storageError` */
export async function moveOwnFile(file: OwnFile, to: string): Promise<void> {
  wrapFsError(`open ${file.path}`, () => withOwnFile(file, constants.O_RDONLY, () => {}));
  await moveFile(file.path, to);
}

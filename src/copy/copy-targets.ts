import { constants, ftruncateSync, readdirSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { inspect, requireDirectory } from '../export/export-schemes.js';
import {
  createAtomically,
  moveFile,
  removeFile,
  removeFileSync,
  writeAtomically,
} from '../files/atomic-file.js';
import {
  findOwnFile,
  guardPath,
  listNames,
  makeGuarded,
  makeOwnFile,
  type OwnFile,
  withGuarded,
  withOwnFile,
} from '../files/guarded-directory.js';
import { readFile, statFile, statName } from '../files/open-file.js';
import { followLinks } from '../files/resolve-path.js';
import { ifExists, wrapFsError, writeFully } from '../files/storage-error.js';
import { joinRanges } from '../format/arrays.js';
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { type ArchivePlan, archiveParts, planArchive } from '../format/tar-writer.js';
import { MAX_INDEX_BYTES } from '../pull/layout-files.js';
import { nameInIndex, OCI_LAYOUT } from '../pull/oci-layout.js';
import type { BlobLocation, CopyTarget, TargetOptions } from './copy-blobs.js';
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
      const found = statFile(pathOf(digest));
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
      while (!(await finishUnderLock(lock, root, pathOf, source, tag))) {
        await lock.reacquire();
        await clear();
      }
    },
    close,
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
 * Writes the documents and names the image. Returns false when the lock is lost: then another copy
 * may have begun, which deletes temporary files.
 */
async function finishUnderLock(
  lock: Pick<DestinationLock, 'isHeld'>,
  root: string,
  pathOf: (digest: Digest) => string,
  source: CopySource,
  tag: string | undefined,
): Promise<boolean> {
  try {
    for (const { digest, bytes } of source.documents) await writeAtomically(pathOf(digest), bytes, false);
    await writeAtomically(join(root, 'oci-layout'), OCI_LAYOUT, false);
    return await nameImage(join(root, 'index.json'), lock, (before) => nameInIndex(before, source.root, tag));
  } catch (error) {
    if (lock.isHeld()) throw error;
    return false;
  }
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
function makeFile(path: string, sizeBytes: number, owner: number): OwnFile {
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
async function moveOwnFile(file: OwnFile, to: string): Promise<void> {
  wrapFsError(`open ${file.path}`, () => withOwnFile(file, constants.O_RDONLY, () => {}));
  await moveFile(file.path, to);
}

/**
 * Opens an OCI layout as a tar, for one copy at a time. As all sizes are known, blobs are written
 * at their offsets in `FILE.part`, with a journal in `FILE.part.ranges` and the lock in
 * `FILE.part.lock`.
 * @throws PullError the reason of a stop; `option-malformed` for a `FILE.part` of another program,
 *   and as `followLinks`; as `storageError`
 */
export async function openArchiveTarget(
  file: string,
  source: CopySource,
  { tag, stop, onWait }: TargetOptions,
): Promise<CopyTarget> {
  const holder = dirname(resolve(file));
  const path = join(
    inspect(holder, () => followLinks(holder)),
    basename(file),
  );
  const { owner, close } = await lockDestination(`${path}.part.lock`, stop, onWait);
  try {
    return { ...openPart(path, source, tag, owner), close };
  } catch (error) {
    close();
    throw error;
  }
}

function openPart(
  path: string,
  source: CopySource,
  tag: string | undefined,
  owner: number,
): Omit<CopyTarget, 'close'> {
  const part = `${path}.part`;
  const { plan, documents, startOf } = planLayout(source, tag);
  const key = `${source.root.digest} ${plan.sizeBytes}`;
  const ranges = new RangeJournal(`${part}.ranges`, key, owner);
  const left = findPart(part, ranges, owner);
  const written = left === undefined ? [] : ranges.read();
  if (written.length === 0) removeFileSync(part);
  const journal = (written.length === 0 ? undefined : ranges.find()) ?? ranges.begin();
  let file: OwnFile | undefined;
  const locationOf = (digest: Digest, sizeBytes: number): Omit<BlobLocation, 'written'> => {
    const start = startOf.get(digest)!;
    return { digest, sizeBytes, path: part, start, isPresent: false };
  };
  return {
    directory: dirname(path),
    async locate(digest, sizeBytes) {
      const location = locationOf(digest, sizeBytes);
      const inside = written
        .map(({ start, end }) => ({ start: start - location.start, end: end - location.start }))
        .filter(({ start, end }) => start >= 0 && end <= sizeBytes);
      return { ...location, written: joinRanges(inside) };
    },
    open(blobs) {
      const made = makeFile(part, plan.sizeBytes, owner);
      file = made;
      return blobs.map((location) => ({ ...location, file: made, journal }));
    },
    discard: async ({ digest, sizeBytes }) => ({ ...locationOf(digest, sizeBytes), written: [] }),
    publish: async () => {},
    async finish() {
      const made = file ?? makeFile(part, plan.sizeBytes, owner);
      wrapFsError(`write ${made.path}`, () =>
        withOwnFile(made, constants.O_WRONLY, (fd) => {
          for (const [bytes, offset] of archiveParts(plan, documents))
            writeFully(fd, made.path, bytes, offset);
        }),
      );
      await moveOwnFile(made, path);
      ranges.remove();
    },
  };
}

/**
 * The unfinished file of an earlier copy of this user.
 * @throws PullError `option-malformed` for any other file
 */
function findPart(part: string, ranges: RangeJournal, owner: number): OwnFile | undefined {
  if (wrapFsError(`stat ${part}`, () => statName(part)) === undefined) return undefined;
  const left = wrapFsError(`open ${part}`, () => findOwnFile(part, owner));
  // A copy begins its journal before it creates the file. Other programs, too, name downloads so.
  if (left !== undefined && ranges.find() !== undefined) return left;
  throw new PullError('option-malformed', `${part} exists, and is not from an earlier copy`, {
    hint: 'move it away, or name another file',
  });
}

function planLayout(
  source: CopySource,
  tag: string | undefined,
): { plan: ArchivePlan; documents: readonly Buffer[]; startOf: ReadonlyMap<Digest, number> } {
  const nameOf = (digest: Digest) => `blobs/sha256/${digestHex(digest)}`;
  const documents = [
    { name: 'oci-layout', bytes: OCI_LAYOUT },
    { name: 'index.json', bytes: nameInIndex(undefined, source.root, tag) },
    ...source.documents.map(({ digest, bytes }) => ({ name: nameOf(digest), bytes })),
  ];
  const blobs = [...source.blobs];
  const plan = planArchive([
    ...documents.map(({ name, bytes }) => ({ name, sizeBytes: bytes.length })),
    ...blobs.map(([digest, { sizeBytes }]) => ({ name: nameOf(digest), sizeBytes })),
  ]);
  const startOf = new Map(
    blobs.map(([digest], row) => [digest, plan.members[documents.length + row]!.contentStart]),
  );
  return { plan, documents: documents.map(({ bytes }) => bytes), startOf };
}

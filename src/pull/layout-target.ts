import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { joinRanges } from '../plan/missing.js';
import { moveFile, removeFile, writeAtomically } from '../store/atomic-file.js';
import { look, requireDirectory } from '../store/destination.js';
import { makeDirectory } from '../store/make-directory.js';
import { RangeJournal } from '../store/range-journal.js';
import { onDisk, onDiskAsync, unlessAbsent } from '../store/storage-error.js';
import type { CopyTarget, TargetOptions } from './copy-target.js';
import { nameInIndex, OCI_LAYOUT } from './layout-index.js';
import { LOCK_DIRECTORY, lockDestination } from './layout-lock.js';

/**
 * An OCI layout in a directory, made if it is not there, for one copy at a time. Blobs are fetched into `HEX.part`, with
 * `HEX.part.ranges` beside it.
 * @throws PullError the reason of a stop; as `storageError`
 */
export async function openLayoutTarget(
  directory: string,
  { tag, stop, onWait }: TargetOptions,
): Promise<CopyTarget> {
  const root = resolve(directory);
  const blobs = join(root, 'blobs', 'sha256');
  const close = await lockDestination(join(root, LOCK_DIRECTORY), stop, onWait);
  const pathOf = (digest: Digest) => join(blobs, digestHex(digest));
  const partOf = (digest: Digest) => `${pathOf(digest)}.part`;
  const journalOf = (digest: Digest) => new RangeJournal(`${partOf(digest)}.ranges`, digest);

  const target: CopyTarget = {
    directory: root,
    async place(digest, sizeBytes) {
      const held = unlessAbsent(`look at ${pathOf(digest)}`, () => statSync(pathOf(digest)));
      const journal = journalOf(digest);
      const place = { digest, sizeBytes, start: 0, journal: journal.path };
      if (held?.size === sizeBytes) return { ...place, path: pathOf(digest), held: true, written: [] };
      const written = existsSync(partOf(digest)) ? journal.read() : [];
      const inside = joinRanges(written.filter(({ end }) => end <= sizeBytes));
      return { ...place, path: partOf(digest), held: false, written: inside };
    },
    async make(places) {
      for (const { digest, sizeBytes, path, written } of places) {
        if (written.length === 0) await journalOf(digest).begin();
        await makeFile(path, sizeBytes);
      }
    },
    async forget({ digest, sizeBytes, path, held }) {
      await journalOf(digest).remove();
      if (held) await onDiskAsync(`delete ${path}`, () => rm(path));
      return target.place(digest, sizeBytes);
    },
    async keep({ digest, path, held }) {
      if (held) return;
      await moveFile(path, pathOf(digest));
      await journalOf(digest).remove();
    },
    async finish({ documents, root: named }) {
      for (const { digest, bytes } of documents) await writeAtomically(pathOf(digest), bytes, false);
      await writeAtomically(join(root, 'oci-layout'), OCI_LAYOUT, false);
      const index = join(root, 'index.json');
      const before = unlessAbsent(`read ${index}`, () => readFileSync(index));
      // It names other images, too: a power cut must not leave it empty. Blobs are hashed by whoever copies there next.
      await writeAtomically(index, nameInIndex(before, named, tag), true);
    },
    close,
  };
  try {
    onDisk(`make the layout ${root}`, () => makeDirectory(blobs));
    for (const path of [root, blobs]) await removeTemporary(path);
  } catch (error) {
    close();
    throw error;
  }
  return target;
}

/** What there may be before there is a layout: a copy that was killed left it, or one that still runs. */
const isBegun = (name: string) =>
  ['blobs', LOCK_DIRECTORY].includes(name) || /^oci-layout\.[0-9a-f]+\.tmp$/.test(name);

/** Deletes what a killed copy has left on the way to its name. A blob's parts are of use, and stay. @throws PullError as `storageError` */
async function removeTemporary(directory: string): Promise<void> {
  const names = onDisk(`look at ${directory}`, () => readdirSync(directory));
  const isUnfinished = (name: string) =>
    /^([0-9a-f]{64}|index\.json|oci-layout)\.[0-9a-f]{16}\.tmp$/.test(name);
  for (const name of names.filter(isUnfinished)) await removeFile(join(directory, name));
}

/**
 * A directory of other things must not become a layout by accident.
 * @throws PullError `option-malformed` for one, and for what is no directory; as `storageError`
 */
export function requireLayout(directory: string): void {
  if (!requireDirectory(directory)) return;
  const names = look(directory, () => readdirSync(directory));
  if (names.includes('oci-layout') || names.every(isBegun)) return;
  throw new PullError('option-malformed', `${directory} is not empty and is no OCI layout`, {
    hint: 'name a layout, an empty directory or one that is not there',
  });
}

/** A sparse file of this length; one that is there keeps its bytes. @throws PullError as `storageError` */
export async function makeFile(path: string, sizeBytes: number): Promise<void> {
  await onDiskAsync(`make ${path}`, async () => {
    const file = await open(path, 'a');
    try {
      await file.truncate(sizeBytes);
    } finally {
      await file.close();
    }
  });
}

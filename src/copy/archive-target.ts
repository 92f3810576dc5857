import { constants } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { inspect } from '../export/export-schemes.js';
import { removeFileSync } from '../files/atomic-file.js';
import { followLinks } from '../files/follow-links.js';
import { statName } from '../files/open-file.js';
import { findOwnFile, type OwnFile, withOwnFile } from '../files/own-file.js';
import { wrapFsError, writeFully } from '../files/storage-error.js';
import { joinRanges } from '../format/arrays.js';
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { type ArchivePlan, archiveParts, planArchive } from '../format/tar-writer.js';
import { nameInIndex, OCI_LAYOUT } from '../pull/oci-layout.js';
import type { BlobLocation, CopyTarget, TargetOptions } from './copy-blobs.js';
import type { CopySource } from './copy-source.js';
import { lockDestination } from './layout-lock.js';
import { makeFile, moveOwnFile } from './layout-target.js';
import { RangeJournal } from './range-journal.js';

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
  if (left === undefined || ranges.find() === undefined) throw foreignPart(part);
  return left;
}

/**
 * A copy begins its journal before it creates the file. Other programs, too, name downloads
 * `FILE.part`.
 */
function foreignPart(part: string): PullError {
  return new PullError('option-malformed', `${part} exists, and is not from an earlier copy`, {
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

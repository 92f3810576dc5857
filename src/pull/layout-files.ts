import { closeSync, fstatSync, readSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { statIfThere } from '../files/follow-links.js';
import { guardDirectory, withGuarded } from '../files/guarded-directory.js';
import { LAYOUT_HINT, wrapLayoutError } from '../files/layout-error.js';
import { openFile, readFile, statName } from '../files/open-file.js';
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { LocalImage } from '../format/local-image.js';
import { type PlacedEntry, type TarSource, tarEntries } from '../format/tar-entries.js';
import { MAX_INDEX_BYTES } from './layout-index.js';

/** A layout of 10,000 images with some layers each; their places take 20 MB of memory. */
const MAX_ARCHIVE_ENTRIES = 100_000;

/** Entries of an archive read between two turns of the event loop: some milliseconds. */
const ENTRIES_A_TURN = 1000;

/** The files of an OCI layout, wherever they lie. */
export interface LayoutFiles {
  /** What messages call the layout, and its index. */
  readonly path: string;
  readonly indexPath: string;
  /** index.json. @throws PullError `metadata-malformed` when it is no file, or too large */
  index(): Buffer;
  /** The bytes of a small blob, not checked against the digest. @throws PullError `blob-not-found`, `metadata-malformed` */
  read(digest: Digest, maxBytes: number): Buffer;
  /**
   * Where workers read a blob: the URL of its file, or that of the archive with `start` and `size`, in bytes, in its query.
   * @throws PullError `blob-not-found`
   */
  blobUrl(digest: Digest): string;
}

/**
 * Opens the layout that has an image. No symbolic link inside it is followed, and none of its bytes is trusted.
 * @throws PullError `image-not-found` when nothing is there, `option-malformed` for what is no layout, `unsupported` for a compressed archive,
 *   `metadata-malformed` for what is no tar
 */
export async function openLayoutFiles({ transport, path }: LocalImage): Promise<LayoutFiles> {
  const kind = wrapLayoutError(path, () => statIfThere(() => statSync(path)));
  if (kind === undefined) {
    throw new PullError('image-not-found', `there is no ${path}`, {
      hint: 'check the path; it is taken from the current directory on',
    });
  }
  if (transport === 'oci') {
    if (!kind.isDirectory())
      throw notLayout(path, 'it is no directory; an archive is named as oci-archive:FILE');
    return directoryFiles(path);
  }
  if (kind.isDirectory()) throw notLayout(path, 'it is a directory, which is named as oci:DIR');
  if (!kind.isFile())
    throw notLayout(path, 'it is no file; what comes from a pipe has to be in a file first');
  return archiveFiles(path);
}

function directoryFiles(root: string): LayoutFiles {
  const indexPath = join(root, 'index.json');
  if (wrapLayoutError(indexPath, () => statName(indexPath)) === undefined) {
    throw notLayout(root, 'it has no index.json');
  }
  const blobs = guardDirectory(root, 'blobs', 'sha256');
  const pathOf = (digest: Digest) => join(blobs, digestHex(digest));
  return {
    path: root,
    indexPath,
    index: () => wrapLayoutError(indexPath, () => readFile(indexPath, MAX_INDEX_BYTES)),
    read: (digest, maxBytes) =>
      wrapLayoutError(
        pathOf(digest),
        () => withGuarded(pathOf(digest), (at) => readFile(pathOf(digest), maxBytes, at)),
        () => noBlob(pathOf(digest), digest),
      ),
    blobUrl: (digest) => {
      const path = pathOf(digest);
      wrapLayoutError(
        path,
        () => withGuarded(path, (at) => closeSync(openFile(path, undefined, at))),
        () => noBlob(path, digest),
      );
      return pathToFileURL(path).href;
    },
  };
}

/** Where a file lies in the archive. */
interface Place {
  readonly start: number;
  readonly sizeBytes: number;
}

async function archiveFiles(named: string): Promise<LayoutFiles> {
  const path = wrapLayoutError(named, () => realpathSync(named));
  const fd = wrapLayoutError(path, () => openFile(path));
  try {
    const { index, blobs } = await scanArchive(path, fd);
    if (index === undefined) throw notLayout(path, 'it has no index.json');
    const indexBytes = readAt(path, index, MAX_INDEX_BYTES);
    const placeOf = (digest: Digest): Place => {
      const place = blobs.get(digestHex(digest));
      if (place === undefined) throw noBlob(path, digest);
      return place;
    };
    return {
      path,
      indexPath: `index.json in ${path}`,
      index: () => indexBytes,
      read: (digest, maxBytes) => readAt(path, placeOf(digest), maxBytes),
      blobUrl: (digest) => {
        const { start, sizeBytes } = placeOf(digest);
        return `${pathToFileURL(path).href}?start=${start}&size=${sizeBytes}`;
      },
    };
  } finally {
    closeSync(fd);
  }
}

/** Where index.json and the blobs of an archive lie: its headers are read once, its contents are not. */
async function scanArchive(
  path: string,
  fd: number,
): Promise<{ readonly index: Place | undefined; readonly blobs: ReadonlyMap<string, Place> }> {
  const source = sourceOf(path, fd);
  refuseCompressed(path, source);
  const blobs = new Map<string, Place>();
  let index: Place | undefined;
  let count = 0;
  for (const { entry, contentStart, contentBytes } of entriesOf(path, source)) {
    count += 1;
    if (count > MAX_ARCHIVE_ENTRIES) throw tooManyEntries(path);
    if (count % ENTRIES_A_TURN === 0) await nextTurn();
    if (entry.type !== '0') continue;
    const name = entry.name.toString('latin1').replace(/^(?:\.\/)+/, '');
    const place = { start: contentStart, sizeBytes: contentBytes };
    const hex = /^blobs\/sha256\/([0-9a-f]{64})$/.exec(name)?.[1];
    if (hex !== undefined) blobs.set(hex, place);
    // Readers of tars differ in which of two they take.
    if (name === 'index.json' && index !== undefined) throw malformed(path, 'it has two files index.json');
    if (name === 'index.json') index = place;
  }
  return { index, blobs };
}

function* entriesOf(path: string, source: TarSource): Generator<PlacedEntry, void, undefined> {
  try {
    yield* tarEntries(source);
  } catch (error) {
    if (!(error instanceof PullError) || error.code === 'store-broken') throw error;
    throw new PullError(error.code, `${path} is no archive that can be read: ${error.message}`, {
      hint: 'write the archive again, with zpull copy or skopeo copy',
      cause: error,
    });
  }
}

function sourceOf(path: string, fd: number): TarSource {
  const { size } = fstatSync(fd);
  return {
    lengthBytes: size,
    read: (position, lengthBytes) => {
      const bytes = wrapLayoutError(path, () => readExactly(fd, position, lengthBytes));
      if (bytes === undefined) throw malformed(path, 'it became shorter while it was read');
      return bytes;
    },
  };
}

/** How files begin that tar would have to be told to decompress: gzip, zstd, xz and bzip2. */
const COMPRESSED = ['1f8b', '28b52ffd', 'fd377a585a00', '425a68'];

function refuseCompressed(path: string, source: TarSource): void {
  const start = source.read(0, Math.min(6, source.lengthBytes)).toString('hex');
  if (!COMPRESSED.some((magic) => start.startsWith(magic))) return;
  throw new PullError(
    'unsupported',
    `${path} is compressed as a whole, so that no part of it can be read alone`,
    {
      hint: 'decompress the archive first, with gunzip or unzstd; its layers may be compressed',
    },
  );
}

function readAt(path: string, { start, sizeBytes }: Place, maxBytes: number): Buffer {
  if (sizeBytes > maxBytes)
    throw malformed(path, `a file in it has ${sizeBytes} bytes; ${maxBytes} at most are read`);
  const bytes = wrapLayoutError(path, () => {
    const fd = openFile(path);
    try {
      return readExactly(fd, start, sizeBytes);
    } finally {
      closeSync(fd);
    }
  });
  if (bytes === undefined) throw malformed(path, 'it became shorter while it was read');
  return bytes;
}

/** These bytes of a file; undefined when it has not got all of them. */
function readExactly(fd: number, start: number, lengthBytes: number): Buffer | undefined {
  const bytes = Buffer.allocUnsafe(lengthBytes);
  let filled = 0;
  while (filled < lengthBytes) {
    const read = readSync(fd, bytes, filled, lengthBytes - filled, start + filled);
    if (read === 0) return undefined;
    filled += read;
  }
  return bytes;
}

function noBlob(path: string, digest: Digest): PullError {
  return new PullError('blob-not-found', `${path} does not have the blob ${digest}`, {
    hint: 'the layout is incomplete: write it again, with zpull copy or skopeo copy',
  });
}

function notLayout(path: string, problem: string): PullError {
  return new PullError('option-malformed', `${path} is not an OCI image layout: ${problem}`, {
    hint: '`zpull copy IMAGE oci:DIR:TAG` makes one',
  });
}

function malformed(path: string, problem: string): PullError {
  return new PullError('metadata-malformed', `${path} is no archive that can be read: ${problem}`, {
    hint: LAYOUT_HINT,
  });
}

function tooManyEntries(path: string): PullError {
  return new PullError('unsupported', `${path} has more than ${MAX_ARCHIVE_ENTRIES} entries`, {
    hint: 'unpack the archive and name it as oci:DIR',
  });
}

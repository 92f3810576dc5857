import { closeSync, fstatSync, readSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { guardDirectory, withGuarded } from '../files/guarded-directory.js';
import { openFile, readFile, statName } from '../files/open-file.js';
import { statIfThere } from '../files/resolve-path.js';
import { LAYOUT_HINT, wrapLayoutError } from '../files/storage-error.js';
import { type Digest, digestHex } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { LocalImage } from '../format/reference.js';
import { type PlacedEntry, type TarSource, tarEntries } from '../format/tar-entries.js';

/** Maximum size of index.json; one with 10,000 images has 3 MB. */
export const MAX_INDEX_BYTES = 16 * 2 ** 20;

/** A layout of 10,000 images with some layers each; their locations take 20 MB of memory. */
const MAX_ARCHIVE_ENTRIES = 100_000;

/** Archive entries to read in one turn of the event loop, which takes some milliseconds. */
const ENTRIES_PER_TURN = 1000;

/** The files of an OCI layout, in a directory or an archive. */
export interface LayoutFiles {
  /** Paths of the layout and its index, for messages. */
  readonly path: string;
  readonly indexPath: string;
  /** Reads index.json. @throws PullError `metadata-malformed` when it is not a file or too large */
  index(): Buffer;
  /**
   * Reads a small blob, without verification.
   * @throws PullError `blob-not-found`, `metadata-malformed`
   */
  read(digest: Digest, maxBytes: number): Buffer;
  /**
   * The URL from which workers read a blob: that of its file, or of the archive with `start` and
   * `size` in bytes as its query.
   * @throws PullError `blob-not-found`
   */
  blobUrl(digest: Digest): string;
}

/**
 * Opens the layout of an image. Follows no symbolic link inside it, and trusts none of its bytes.
 * @throws PullError `image-not-found` when it does not exist, `option-malformed` when it is not a
 *   layout, `unsupported` for a compressed archive, `metadata-malformed` for a malformed one
 */
export async function openLayoutFiles({ transport, path }: LocalImage): Promise<LayoutFiles> {
  const kind = wrapLayoutError(path, () => statIfThere(() => statSync(path)));
  if (kind === undefined) {
    throw new PullError('image-not-found', `there is no ${path}`, {
      hint: 'check the path; it is relative to the current directory',
    });
  }
  if (transport === 'oci') {
    if (!kind.isDirectory())
      throw notLayout(path, 'it is not a directory; name an archive as oci-archive:FILE');
    return openLayoutDirectory(path);
  }
  if (kind.isDirectory()) throw notLayout(path, 'it is a directory; name it as oci:DIR');
  if (!kind.isFile())
    throw notLayout(path, 'it is not a regular file; write the output of a pipe to a file first');
  return archiveFiles(path);
}

/**
 * Opens a layout in a directory.
 * @throws PullError `option-malformed` when it is none
 */
export function openLayoutDirectory(root: string): LayoutFiles {
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

/** Where a file is in the archive. */
interface FileRange {
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
    const rangeOf = (digest: Digest): FileRange => {
      const range = blobs.get(digestHex(digest));
      if (range === undefined) throw noBlob(path, digest);
      return range;
    };
    return {
      path,
      indexPath: `index.json in ${path}`,
      index: () => indexBytes,
      read: (digest, maxBytes) => readAt(path, rangeOf(digest), maxBytes),
      blobUrl: (digest) => {
        const { start, sizeBytes } = rangeOf(digest);
        return `${pathToFileURL(path).href}?start=${start}&size=${sizeBytes}`;
      },
    };
  } finally {
    closeSync(fd);
  }
}

/** Locates index.json and the blobs of an archive. Reads its headers once, and no contents. */
async function scanArchive(
  path: string,
  fd: number,
): Promise<{ readonly index: FileRange | undefined; readonly blobs: ReadonlyMap<string, FileRange> }> {
  const source = sourceOf(path, fd);
  refuseCompressed(path, source);
  const blobs = new Map<string, FileRange>();
  let index: FileRange | undefined;
  let count = 0;
  for (const { entry, contentStart, contentBytes } of entriesOf(path, source)) {
    count += 1;
    if (count > MAX_ARCHIVE_ENTRIES) throw tooManyEntries(path);
    if (count % ENTRIES_PER_TURN === 0) await nextTurn();
    if (entry.type !== '0') continue;
    const name = entry.name.toString('latin1').replace(/^(?:\.\/)+/, '');
    const range = { start: contentStart, sizeBytes: contentBytes };
    const hex = /^blobs\/sha256\/([0-9a-f]{64})$/.exec(name)?.[1];
    if (hex !== undefined) blobs.set(hex, range);
    // Tar readers differ in which of two they use.
    if (name === 'index.json' && index !== undefined) throw malformed(path, 'it has two files index.json');
    if (name === 'index.json') index = range;
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

/** Magic numbers of gzip, zstd, xz and bzip2. */
const COMPRESSED = ['1f8b', '28b52ffd', 'fd377a585a00', '425a68'];

function refuseCompressed(path: string, source: TarSource): void {
  const start = source.read(0, Math.min(6, source.lengthBytes)).toString('hex');
  if (!COMPRESSED.some((magic) => start.startsWith(magic))) return;
  throw new PullError('unsupported', `${path} is compressed, so that its files cannot be read separately`, {
    hint: 'decompress the archive first, with gunzip or unzstd; its layers may be compressed',
  });
}

function readAt(path: string, { start, sizeBytes }: FileRange, maxBytes: number): Buffer {
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

/** Reads these bytes of a file; undefined when it is shorter. */
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

import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, type Stats } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { ifExists, systemCode, UnfitFile, wrapFsError } from './storage-error.js';

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL } = constants;

/**
 * Added to every open: links are not followed, and a FIFO without a writer does not block. Windows
 * has neither flag: links need privileges there, and pipes have a namespace of their own.
 */
const CAREFUL = (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

/** Flags to create a file that must not exist. */
export const NEW_FILE = O_WRONLY | O_CREAT | O_EXCL;

/** Even with a umask of 0, only owner and group may write new files. */
const FILE_MODE = 0o664;

/**
 * Error codes of `open` for a link (ELOOP; EMLINK on FreeBSD), a FIFO without a reader or a socket
 * (ENXIO; EOPNOTSUPP on macOS), a missing device (ENODEV) and a directory opened for writing
 * (EISDIR).
 */
const NOT_REGULAR = ['ELOOP', 'EMLINK', 'ENXIO', 'EOPNOTSUPP', 'ENODEV', 'EISDIR'];

/**
 * Opens a regular file: no link, FIFO, device or directory. `at` is the path for the system, if
 * that is not `path`.
 * @throws UnfitFile for anything else, and the system's own errors
 */
export function openFile(path: string, flags: number = O_RDONLY, at: string = path): number {
  return openRegular(path, flags, at).fd;
}

function openRegular(path: string, flags: number, at: string): { fd: number; sizeBytes: number } {
  const fd = asUnfit(path, () => openSync(at, flags | CAREFUL, FILE_MODE));
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw notRegular(path);
    return { fd, sizeBytes: stat.size };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** As `openFile`, with calls that wait in libuv's pool. */
export async function openFileAsync(path: string, flags: number, at: string = path): Promise<FileHandle> {
  const file = await open(at, flags | CAREFUL, FILE_MODE).catch((error) =>
    asUnfit(path, () => {
      throw error;
    }),
  );
  try {
    if (!(await file.stat()).isFile()) throw notRegular(path);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Flags to open a directory in order to sync it, which does no harm behind a link. */
const DIRECTORY = O_RDONLY | (constants.O_DIRECTORY ?? 0) | (constants.O_NONBLOCK ?? 0);

/** Opens a directory to sync it. @throws the system's own errors */
export function openDirectory(path: string): number {
  return openSync(path, DIRECTORY);
}

/** As `openDirectory`, with calls that wait in libuv's pool. */
export function openDirectoryAsync(path: string): Promise<FileHandle> {
  return open(path, DIRECTORY);
}

/**
 * Returns all bytes of a regular file.
 * @throws UnfitFile for anything else, and for more than `maxBytes`; the system's own errors
 */
export function readFile(path: string, maxBytes: number, at: string = path): Buffer {
  const { fd, sizeBytes } = openRegular(path, O_RDONLY, at);
  try {
    if (sizeBytes > maxBytes)
      throw new UnfitFile(path, `has ${sizeBytes} bytes; ${maxBytes} at most are read`);
    return readBytes(fd, sizeBytes);
  } finally {
    closeSync(fd);
  }
}

/** As `readFile`; undefined for an absent file. @throws UnfitFile; PullError as `storageError` */
export function readIfExists(path: string, maxBytes: number): Buffer | undefined {
  return ifExists(`read ${path}`, () => readFile(path, maxBytes));
}

/** Returns the first bytes of an open file, at most all. @throws the system's own errors */
export function readBytes(fd: number, lengthBytes: number): Buffer {
  const bytes = Buffer.allocUnsafe(lengthBytes);
  return bytes.subarray(0, readFully(fd, bytes, 0));
}

/**
 * Reads from `position` on until `target` is full or the file ends; returns the bytes read.
 * @throws the system's own errors
 */
export function readFully(fd: number, target: Uint8Array, position: number): number {
  let filled = 0;
  while (filled < target.length) {
    const read = readSync(fd, target, filled, target.length - filled, position + filled);
    if (read === 0) break;
    filled += read;
  }
  return filled;
}

/**
 * Returns the status of a regular file, or undefined if there is none with this name; links and
 * other kinds do not count.
 * @throws PullError as `storageError`
 */
export function statFile(path: string): Stats | undefined {
  const stat = wrapFsError(`stat ${path}`, () => statName(path));
  return stat?.isFile() === true ? stat : undefined;
}

/**
 * Returns the status of whatever has this name, without following a link; undefined if nothing has.
 * @throws the system's own errors
 */
export function statName(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Returns what `read` returns, or `instead` if it throws UnfitFile. */
export function unlessUnfit<T, U = undefined>(read: () => T, instead?: U): T | U {
  try {
    return read();
  } catch (error) {
    if (error instanceof UnfitFile) return instead as U;
    throw error;
  }
}

function asUnfit<T>(path: string, open: () => T): T {
  try {
    return open();
  } catch (error) {
    throw NOT_REGULAR.includes(systemCode(error) ?? '') ? notRegular(path) : error;
  }
}

function notRegular(path: string): UnfitFile {
  return new UnfitFile(path, 'is not a regular file');
}

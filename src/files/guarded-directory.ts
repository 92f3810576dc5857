import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  opendirSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { PullError } from '../format/error.js';
import { NEW_FILE, openFile, statName, unlessUnfit } from './open-file.js';
import { canHoldDirectory, openPath, openPathItself, pathOfFd } from './resolve-path.js';
import { systemCode, UnfitFile } from './storage-error.js';

/**
 * 25 times as many as the largest directory of a store with 1,000 images of 40 layers has; 100 MB
 * of names.
 */
const MAX_NAMES = 2 ** 20;

/** For owner and group, as the umask allows; even with a umask of 0 nobody else may write there. */
const DIRECTORY_MODE = 0o775;

/** The steps from a root that the user named, which may have links, to one of our directories. */
interface GuardedPath {
  readonly root: string;
  readonly steps: readonly string[];
}

/**
 * The directories in which files are created and deleted only by way of their roots. Each thread
 * has its own map.
 */
const guarded = new Map<string, GuardedPath>();

/**
 * Returns the path of a directory below `root`. From now on this thread creates, renames and
 * deletes files in it only if no step below the root is a link. Does not access the disk.
 */
export function guardDirectory(root: string, ...steps: string[]): string {
  const path = join(root, ...steps);
  guarded.set(path, { root, steps });
  return path;
}

/**
 * As `guardDirectory` below a path from `followLinks`, which is guarded too: no step of it may have
 * become a link. Where the system cannot hold directories open it is found by its path.
 */
export function guardPath(path: string, ...steps: string[]): string {
  if (!canHoldDirectory()) return steps.length === 0 ? path : guardDirectory(path, ...steps);
  return guardDirectory('/', ...path.split('/').filter((step) => step !== ''), ...steps);
}

/** A directory opened for changes in it, which stays the same one if its path is changed. */
interface GuardedDirectory {
  /** Returns the path by which the system finds a file of this directory. */
  at(name: string): string;
  close(): void;
}

/**
 * Opens a directory for changes in it. One that is not guarded is found by its path each time.
 * @throws UnfitFile if a step to it is a link or no directory; `store-denied` if it belongs to
 *   somebody else and the system cannot hold it open; the system's own errors
 */
export function openGuarded(path: string): GuardedDirectory {
  const way = guarded.get(path);
  if (way === undefined) return { at: (name) => join(path, name), close: () => {} };
  return canHoldDirectory() ? follow(way) : checked(way);
}

function follow({ root, steps }: GuardedPath): GuardedDirectory {
  let fd = openPath(root === '' ? '.' : root);
  let path = root;
  for (const step of steps) {
    path = join(path, step);
    try {
      const next = openStep(path, `${pathOfFd(fd)}/${step}`);
      closeSync(fd);
      fd = next;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }
  return { at: (name) => `${pathOfFd(fd)}/${name}`, close: () => closeSync(fd) };
}

function openStep(path: string, at: string): number {
  try {
    return openPathItself(at);
  } catch (error) {
    throw ['ENOTDIR', 'ELOOP'].includes(systemCode(error) ?? '') ? notOwnDirectory(path) : error;
  }
}

/** Without descriptors for directories, only those of this user are safe from being swapped. */
function checked({ root, steps }: GuardedPath): GuardedDirectory {
  let path = root;
  for (const step of steps) {
    path = join(path, step);
    const stat = lstatSync(path);
    if (!stat.isDirectory()) throw notOwnDirectory(path);
    if (process.geteuid !== undefined && stat.uid !== process.geteuid()) {
      throw new PullError('store-denied', `${path} belongs to another user, who could swap it meanwhile`, {
        hint: 'Run zpull as that user, or choose another place.',
      });
    }
  }
  return { at: (name) => join(path, name), close: () => {} };
}

function notOwnDirectory(path: string): UnfitFile {
  return new UnfitFile(path, 'is a link or no directory');
}

/**
 * Calls `change` with the path by which the system finds `path`, and returns its result.
 * @throws as `openGuarded`, and what `change` throws
 */
export function withGuarded<T>(path: string, change: (at: string) => T): T {
  const directory = openGuarded(dirname(path));
  try {
    return change(directory.at(basename(path)));
  } finally {
    directory.close();
  }
}

/** As `withGuarded`, for asynchronous changes. */
export async function withGuardedAsync<T>(path: string, change: (at: string) => Promise<T>): Promise<T> {
  const directory = openGuarded(dirname(path));
  try {
    return await change(directory.at(basename(path)));
  } finally {
    directory.close();
  }
}

/**
 * Creates a guarded directory and the steps to it below an existing root. A directory that is not
 * guarded becomes so, below its parent.
 * @returns the directories that were created
 * @throws as `openGuarded`
 */
export function makeGuarded(path: string, mode: number = DIRECTORY_MODE): string[] {
  if (!guarded.has(path)) guardDirectory(dirname(path), basename(path));
  // It usually exists. Whether by way of a link, `openGuarded` finds out.
  if (statName(path) !== undefined) return [];
  const { root, steps } = guarded.get(path)!;
  const made: string[] = [];
  for (const row of steps.keys()) {
    const step = guardDirectory(root, ...steps.slice(0, row + 1));
    try {
      withGuarded(step, (at) => mkdirSync(at, { mode }));
      made.push(step);
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw error;
    }
  }
  return made;
}

/**
 * Returns the sorted names that `accepts` accepts of what is in a directory: without those of
 * directories, or those alone.
 * @throws UnfitFile for more names than any store has, else as `openGuarded`
 */
export function listNames(
  path: string,
  accepts: (name: string) => boolean = () => true,
  kind: 'files' | 'directories' = 'files',
): string[] {
  return withGuarded(`${path}/.`, (at) => {
    const directory = opendirSync(at, { bufferSize: 1024 });
    try {
      const names: string[] = [];
      let seen = 0;
      for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
        seen += 1;
        if (seen > MAX_NAMES) throw new UnfitFile(path, `has more than ${MAX_NAMES} names`);
        if (entry.isDirectory() === (kind === 'directories') && accepts(entry.name)) names.push(entry.name);
      }
      return names.sort();
    } finally {
      directory.closeSync();
    }
  });
}

/**
 * Creates a directory and its parents where they are missing.
 * @returns the topmost directory that it created
 * @throws the system's error; EROFS where Node reports a read-only file system as ENOENT
 */
export function makeDirectory(path: string, mode?: number): string | undefined {
  try {
    return mkdirSync(path, { recursive: true, ...(mode !== undefined && { mode }) });
  } catch (error) {
    if (systemCode(error) === 'ENOENT') accessSync(nearestExisting(resolve(path)), constants.W_OK);
    throw error;
  }
}

/** Returns the path itself or its nearest existing parent. */
export function nearestExisting(path: string): string {
  return existsSync(path) || path === dirname(path) ? path : nearestExisting(dirname(path));
}

/**
 * A file that this process created or adopted, in a directory where others may rename things:
 * opened again, it must be the same file. Plain strings, which can be sent to threads.
 */
export interface OwnFile {
  readonly path: string;
  /** Device and inode. */
  readonly identity: string;
}

/**
 * Creates a file that must not exist, and calls `use` with it.
 * @throws the system's own errors, EEXIST among them
 */
export function makeOwnFile(path: string, use: (fd: number) => void = () => {}): OwnFile {
  return withFile(path, NEW_FILE, (fd) => {
    use(fd);
    return { path, identity: identityOf(fd) };
  });
}

/**
 * Returns the file that an earlier process of this user left under a name: a regular file without
 * other names that belongs to `owner`, the owner of files that this user creates there. Returns
 * undefined for anything else, which another user may have put there.
 * @throws the system's own errors, except for a missing file
 */
export function findOwnFile(path: string, owner: number): OwnFile | undefined {
  try {
    return unlessUnfit(() =>
      withFile(path, constants.O_RDWR, (fd) => {
        const { uid, nlink } = fstatSync(fd);
        if (uid !== owner || nlink > 1) return undefined;
        return { path, identity: identityOf(fd) };
      }),
    );
  } catch (error) {
    // A file that this user may not write belongs to another user, or is of no use.
    if (['ENOENT', 'EACCES', 'EPERM'].includes(systemCode(error) ?? '')) return undefined;
    throw error;
  }
}

/**
 * Opens the same file again.
 * @throws UnfitFile if something else has its name by now, and the system's own errors
 */
export function openOwnFile({ path, identity }: OwnFile, flags: number = constants.O_RDONLY): number {
  const fd = withGuarded(path, (at) => openFile(path, flags, at));
  if (identityOf(fd) === identity) return fd;
  closeSync(fd);
  throw new UnfitFile(path, 'is another file than the one that was made here');
}

/** Calls `use` with the same file, opened. @throws as `openOwnFile`, and what `use` throws */
export function withOwnFile<T>(file: OwnFile, flags: number, use: (fd: number) => T): T {
  const fd = openOwnFile(file, flags);
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

function withFile<T>(path: string, flags: number, use: (fd: number) => T): T {
  const fd = withGuarded(path, (at) => openFile(path, flags, at));
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

/** Inodes have 64 bits on some file systems. */
function identityOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev} ${ino}`;
}

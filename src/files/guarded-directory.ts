import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  opendirSync,
  openSync,
} from 'node:fs';
import { basename, dirname, join, parse, resolve, sep } from 'node:path';
import { PullError } from '../format/error.js';
import { statName, UnfitFile } from './open-file.js';
import { systemCode } from './storage-error.js';

/**
 * Linux: a descriptor that stands for a file or directory and needs no permission to read it
 * (open(2); node:fs does not name it). The value is the same on every architecture that Node runs
 * on.
 */
const O_PATH = 0o10000000;

/**
 * Opens a directory as a location (O_PATH), following links.
 * @throws the system's own errors, ENOTDIR for anything but a directory
 */
function openPath(path: string | Buffer): number {
  return openSync(path, O_PATH | constants.O_DIRECTORY);
}

/**
 * As `openPath`, but does not follow a link at the end of the path.
 * @throws as `openPath`, ENOTDIR for such a link too
 */
export function openPathItself(path: string | Buffer): number {
  return openSync(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
}

/**
 * As `openPath`, for an absolute path in which no step may be a link. @throws as `openPathItself`
 */
export function openPathWithoutLinks(path: string): number {
  const { root } = parse(path);
  let fd = openPath(root);
  for (const step of path.slice(root.length).split(sep)) {
    if (step === '') continue;
    const holder = fd;
    try {
      fd = openPathItself(`${pathOfFd(holder)}/${step}`);
    } finally {
      closeSync(holder);
    }
  }
  return fd;
}

/**
 * Opens a symbolic link itself, or whatever has this name, to inspect and change it.
 * @throws the system's own errors
 */
export function openLinkItself(path: string | Buffer): number {
  return openSync(path, O_PATH | constants.O_NOFOLLOW);
}

/**
 * Returns a path to an open file, wherever it has been moved since. All threads of this process can
 * use it.
 */
export function pathOfFd(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

let canHold: boolean | undefined;

/**
 * Whether `/proc/self/fd/N/NAME` is NAME in the directory that is open as N. Tested once in each
 * thread.
 */
export function canHoldDirectory(): boolean {
  canHold ??= process.platform === 'linux' && leadsToOpenFiles();
  return canHold;
}

function leadsToOpenFiles(): boolean {
  const fd = openPath('/');
  try {
    return existsSync(`${pathOfFd(fd)}/.`);
  } finally {
    closeSync(fd);
  }
}

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
export function guardPath(place: string, ...steps: string[]): string {
  if (!canHoldDirectory()) return steps.length === 0 ? place : guardDirectory(place, ...steps);
  return guardDirectory('/', ...place.split('/').filter((step) => step !== ''), ...steps);
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
    if (['ENOTDIR', 'ELOOP'].includes((error as NodeJS.ErrnoException).code ?? ''))
      throw notOwnDirectory(path);
    throw error;
  }
}

/**
 * Without descriptors for directories, only directories of this user are safe from being swapped.
 */
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
    const holder = row === 0 ? root : dirname(step);
    if (makeIn(holder, step, mode)) made.push(step);
  }
  return made;
}

function makeIn(holder: string, path: string, mode: number): boolean {
  const directory = openGuarded(holder);
  try {
    mkdirSync(directory.at(basename(path)), { mode });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    return false;
  } finally {
    directory.close();
  }
}

/**
 * Returns the sorted names in a directory that `isWanted` accepts, either without those of
 * directories or these alone.
 * @throws UnfitFile for more names than any store has, else as `openGuarded`
 */
export function listNames(
  path: string,
  isWanted: (name: string) => boolean = () => true,
  kind: 'files' | 'directories' = 'files',
): string[] {
  const opened = openGuarded(path);
  try {
    const directory = opendirSync(opened.at('.'), { bufferSize: 1024 });
    try {
      const names: string[] = [];
      let seen = 0;
      for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
        seen += 1;
        if (seen > MAX_NAMES) throw new UnfitFile(path, `has more than ${MAX_NAMES} names`);
        if (entry.isDirectory() === (kind === 'directories') && isWanted(entry.name)) names.push(entry.name);
      }
      return names.sort();
    } finally {
      directory.closeSync();
    }
  } finally {
    opened.close();
  }
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
    if (systemCode(error) === 'ENOENT') accessSync(nearest(resolve(path)), constants.W_OK);
    throw error;
  }
}

/** Returns the path itself or its nearest existing parent. */
function nearest(path: string): string {
  return existsSync(path) || path === dirname(path) ? path : nearest(dirname(path));
}

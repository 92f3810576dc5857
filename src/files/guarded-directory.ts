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
 * Linux: a descriptor that stands for a place and needs no permission to read it (open(2); node:fs does not name it). The value
 * is the same on every architecture that Node runs on.
 */
const O_PATH = 0o10000000;

/** Opens whatever a path names, links followed, as a place. @throws the system's own errors, ENOTDIR for what is no directory */
function openPlace(path: string | Buffer): number {
  return openSync(path, O_PATH | constants.O_DIRECTORY);
}

/** As `openPlace`, but a link at the end of the path is not followed. @throws as `openPlace`, ENOTDIR for such a link too */
export function openPlaceItself(path: string | Buffer): number {
  return openSync(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
}

/** As `openPlace`, for an absolute path in which no step may be a link. @throws as `openPlaceItself` */
export function openPlaceWithoutLinks(path: string): number {
  const { root } = parse(path);
  let fd = openPlace(root);
  for (const step of path.slice(root.length).split(sep)) {
    if (step === '') continue;
    const holder = fd;
    try {
      fd = openPlaceItself(`${pathOfOpen(holder)}/${step}`);
    } finally {
      closeSync(holder);
    }
  }
  return fd;
}

/** Opens a symbolic link itself, or what else has this name, to be looked at and changed. @throws the system's own errors */
export function openLinkItself(path: string | Buffer): number {
  return openSync(path, O_PATH | constants.O_NOFOLLOW);
}

/** A path to what is open, wherever that has been moved since. All threads of this process can use it. */
export function pathOfOpen(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

let canHold: boolean | undefined;

/** Whether `/proc/self/fd/N/NAME` is NAME in the directory that is open as N. Asked of the system once a thread. */
export function canHoldDirectories(): boolean {
  canHold ??= process.platform === 'linux' && leadsToOpenFiles();
  return canHold;
}

function leadsToOpenFiles(): boolean {
  const fd = openPlace('/');
  try {
    return existsSync(`${pathOfOpen(fd)}/.`);
  } finally {
    closeSync(fd);
  }
}

/** 25 times what the largest directory of a store with 1,000 images of 40 layers has; 100 MB of names. */
const MAX_NAMES = 2 ** 20;

/** For owner and group, as the umask allows; with a umask of 0, too, nobody else may write there. */
const DIRECTORY_MODE = 0o775;

/** The steps from a root that the user named, links and all, to a directory of ours. */
interface Way {
  readonly root: string;
  readonly steps: readonly string[];
}

/** The directories in which files are made and deleted only by way of their roots. Each thread has its own list. */
const ways = new Map<string, Way>();

/**
 * The path of a directory below `root`. From now on this thread makes, renames and deletes what is in it only when no step below
 * the root is a link. Touches no disk.
 */
export function guardDirectory(root: string, ...steps: string[]): string {
  const path = join(root, ...steps);
  ways.set(path, { root, steps });
  return path;
}

/**
 * As `guardDirectory` below a path from `followLinks`, itself included: not even the way to it may have a link by then. Where the
 * system cannot hold directories it is found by its path.
 */
export function guardPlace(place: string, ...steps: string[]): string {
  if (!canHoldDirectories()) return steps.length === 0 ? place : guardDirectory(place, ...steps);
  return guardDirectory('/', ...place.split('/').filter((step) => step !== ''), ...steps);
}

/** A directory for changes in it, which stays the same one whatever happens to its path meanwhile. */
interface GuardedDirectory {
  /** What the system finds a file of this directory by. */
  at(name: string): string;
  close(): void;
}

/**
 * Opens a directory for changes in it. One that is not guarded is found by its path each time.
 * @throws UnfitFile when a step to it is a link or no directory; `store-denied` where it belongs to somebody else and the system
 *   cannot hold it; the system's own errors
 */
export function holdDirectory(path: string): GuardedDirectory {
  const way = ways.get(path);
  if (way === undefined) return { at: (name) => join(path, name), close: () => {} };
  return canHoldDirectories() ? follow(way) : checked(way);
}

function follow({ root, steps }: Way): GuardedDirectory {
  let fd = openPlace(root === '' ? '.' : root);
  let path = root;
  for (const step of steps) {
    path = join(path, step);
    try {
      const next = openStep(path, `${pathOfOpen(fd)}/${step}`);
      closeSync(fd);
      fd = next;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }
  return { at: (name) => `${pathOfOpen(fd)}/${name}`, close: () => closeSync(fd) };
}

function openStep(path: string, at: string): number {
  try {
    return openPlaceItself(at);
  } catch (error) {
    if (['ENOTDIR', 'ELOOP'].includes((error as NodeJS.ErrnoException).code ?? ''))
      throw notOwnDirectory(path);
    throw error;
  }
}

/** Without descriptors that stand for directories, only their owner is safe from somebody who swaps them. */
function checked({ root, steps }: Way): GuardedDirectory {
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

/** What `change` returns, given what the system finds `path` by. @throws as `holdDirectory`, and what `change` throws */
export function within<T>(path: string, change: (at: string) => T): T {
  const directory = holdDirectory(dirname(path));
  try {
    return change(directory.at(basename(path)));
  } finally {
    directory.close();
  }
}

/** As `within`, for what takes time. */
export async function withinAsync<T>(path: string, change: (at: string) => Promise<T>): Promise<T> {
  const directory = holdDirectory(dirname(path));
  try {
    return await change(directory.at(basename(path)));
  } finally {
    directory.close();
  }
}

/**
 * Makes a guarded directory and the steps to it; the root is there. A directory that is not guarded is from now on, below the one
 * that it lies in.
 * @returns those that were made
 * @throws as `holdDirectory`
 */
export function makeGuarded(path: string, mode: number = DIRECTORY_MODE): string[] {
  if (!ways.has(path)) guardDirectory(dirname(path), basename(path));
  // As a rule it is there; whether by way of a link, those find who hold it.
  if (statName(path) !== undefined) return [];
  const { root, steps } = ways.get(path)!;
  const made: string[] = [];
  for (const row of steps.keys()) {
    const step = guardDirectory(root, ...steps.slice(0, row + 1));
    const holder = row === 0 ? root : dirname(step);
    if (makeIn(holder, step, mode)) made.push(step);
  }
  return made;
}

function makeIn(holder: string, path: string, mode: number): boolean {
  const directory = holdDirectory(holder);
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
 * The names in a directory that `isWanted` takes, sorted; without those of directories, or these alone.
 * @throws UnfitFile for more names than any store has, else as `holdDirectory`
 */
export function listNames(
  path: string,
  isWanted: (name: string) => boolean = () => true,
  kind: 'files' | 'directories' = 'files',
): string[] {
  const held = holdDirectory(path);
  try {
    const directory = opendirSync(held.at('.'), { bufferSize: 1024 });
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
    held.close();
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

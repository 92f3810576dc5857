import {
  closeSync,
  constants,
  existsSync,
  lstatSync,
  openSync,
  readlinkSync,
  type Stats,
  statSync,
} from 'node:fs';
import { dirname, isAbsolute, join, parse, resolve, sep } from 'node:path';
import { PullError } from '../format/error.js';
import { statName } from './open-file.js';
import { systemCode } from './storage-error.js';

/** The number Linux follows in one path (path_resolution(7)). */
const MAX_LINKS = 40;

/** A link that neither root nor this user created. */
interface ForeignLink {
  readonly path: string;
  readonly uid: number;
}

/**
 * Returns the path without links to what `path` leads to; what does not exist keeps its name. Links
 * of root and of this user are followed. A link of another user is followed only to a directory of
 * that user, or a file in one: a user who may create a link must not decide what is written into other
 * directories. A link to nothing, and one that stands for something without a path (a pipe in
 * `/proc/self/fd`), keeps its name. Where files have no owners (Windows) the path is returned
 * unchanged.
 * @throws PullError `option-malformed` for a link of another user that leads elsewhere; the
 *   system's own errors, ELOOP after 40 links
 */
export function followLinks(path: string): string {
  const absolute = resolve(path);
  if (process.geteuid === undefined) return absolute;
  return new Walk(process.geteuid()).from(parse(absolute).root, absolute);
}

class Walk {
  readonly #own: number;
  #links = 0;
  /**
   * The last link of another user on the path so far: `..` behind it leads to a directory of their
   * choice.
   */
  #foreign: ForeignLink | undefined;
  /**
   * The number of links of other users being followed. Where those end is checked, so `..` inside
   * them need not be.
   */
  #depth = 0;

  constructor(own: number) {
    this.#own = own;
  }

  /** Returns where `path` leads from a directory whose path has no links. */
  from(directory: string, path: string): string {
    let reached = directory;
    if (isAbsolute(path)) {
      reached = parse(path).root;
      this.#foreign = undefined;
    }
    for (const step of path.split(sep)) {
      if (step === '' || step === '.') continue;
      if (step === '..') {
        reached = dirname(reached);
        if (this.#foreign !== undefined && this.#depth === 0) requireTheirs(this.#foreign, reached);
      } else {
        reached = this.#next(join(reached, step));
      }
    }
    return reached;
  }

  #next(path: string): string {
    const stat = statName(path);
    if (stat?.isSymbolicLink() !== true) return path;
    this.#links += 1;
    if (this.#links > MAX_LINKS) {
      throw Object.assign(new Error(`ELOOP: too many symbolic links, ${path}`), { code: 'ELOOP' });
    }
    const isForeign = stat.uid !== 0 && stat.uid !== this.#own;
    if (isForeign) this.#depth += 1;
    const end = this.from(dirname(path), readlinkSync(path));
    const isSame = isSameFile(path, end);
    if (!isForeign) return isSame ? end : path;
    this.#depth -= 1;
    const link = { path, uid: stat.uid };
    if (!isSame) throw leadsAway(link, end, undefined);
    requireTheirs(link, end);
    this.#foreign = link;
    return end;
  }
}

/**
 * Whether the system follows the link to `end`: not for a link to nothing, nor for some links of
 * `/proc`.
 */
function isSameFile(link: string, end: string): boolean {
  const followed = statIfThere(() => statSync(link));
  const found = statIfThere(() => lstatSync(end));
  return followed !== undefined && followed.ino === found?.ino && followed.dev === found.dev;
}

/** Returns what `stat` returns, or undefined if nothing is there. @throws the system's own errors */
export function statIfThere(stat: () => Stats): Stats | undefined {
  try {
    return stat();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return undefined;
    throw error;
  }
}

/**
 * @throws PullError `option-malformed` unless the directory, or that of the file, belongs to the
 *   user who made the link
 */
function requireTheirs(link: ForeignLink, end: string): void {
  const stat = lstatSync(end);
  const { uid } = stat.isDirectory() ? stat : lstatSync(dirname(end));
  if (uid !== link.uid) throw leadsAway(link, end, uid);
}

function leadsAway(link: ForeignLink, end: string, uid: number | undefined): PullError {
  const whose = uid === undefined ? 'where nothing is' : `which belongs to user ${uid}`;
  return new PullError(
    'option-malformed',
    `the symbolic link ${link.path} of user ${link.uid} leads to ${end}, ${whose}`,
    {
      hint: `Name the place that you mean by its own path${uid === undefined ? '' : `: ${end}, if it is that`}.`,
    },
  );
}

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
export function openPath(path: string | Buffer): number {
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

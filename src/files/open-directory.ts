import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fstatSync,
  lchownSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  type Stats,
  statSync,
  unlinkSync,
  utimesSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { PullError } from '../format/error.js';
import {
  canHoldDirectory,
  followLinks,
  openLinkItself,
  openPathItself,
  openPathWithoutLinks,
  pathOfFd,
} from './resolve-path.js';
import { systemCode } from './storage-error.js';

const GROUP_OR_OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

/** A directory that the main thread holds open, for the other threads of the process. */
export interface SharedDirectory {
  /** The path in messages. */
  readonly path: string;
  /** Absent for a directory that is found by its path. */
  readonly fd?: number;
}

/**
 * A directory that stays the same one whatever other users rename. If another user could rename a
 * directory on the path to it, it is held open: Linux resolves `/proc/self/fd/N/NAME` from the open
 * directory N and looks up NAME alone, as openat(2) does. Otherwise its path is used, which takes
 * 5 % less time. Systems without `/proc` have the path only.
 */
export class OpenDirectory {
  /** The path in messages. */
  readonly path: string;
  readonly #base: Buffer;
  readonly #fd: number | undefined;
  readonly #canHold: boolean;
  #stat: (Access & { readonly ino: bigint }) | undefined;
  #isGuarded: boolean | undefined;

  private constructor(path: string, base: Buffer, fd?: number, canHold = canHoldDirectory()) {
    this.path = path;
    this.#base = base;
    this.#fd = fd;
    this.#canHold = canHold;
  }

  /**
   * Opens the directory that a path leads to, following links as `followLinks` does.
   * @throws the system's error, ENOTDIR also for a link created meanwhile; PullError
   *   `option-malformed` as `followLinks`, and if other users can change the path and the system
   *   cannot hold directories
   */
  static hold(path: string, canHold = canHoldDirectory()): OpenDirectory {
    const real = followLinks(path);
    const unguarded = firstUnguarded(real);
    if (unguarded === undefined) return new OpenDirectory(real, Buffer.from(real), undefined, canHold);
    if (!canHold) throw notSafe(unguarded);
    return OpenDirectory.receive({ path, fd: openPathWithoutLinks(real) });
  }

  /** Wraps a directory that another thread holds and closes. */
  static receive({ path, fd }: SharedDirectory): OpenDirectory {
    if (fd === undefined) return new OpenDirectory(path, Buffer.from(path));
    return new OpenDirectory(path, Buffer.from(pathOfFd(fd)), fd);
  }

  /** The directory for other threads, valid until this one closes it. */
  get shared(): SharedDirectory {
    return { path: this.path, ...(this.#fd !== undefined && { fd: this.#fd }) };
  }

  /** A path to the directory itself for calls that follow links: chmod, chown, utimes, readdir. */
  get self(): Buffer {
    return this.#base;
  }

  /** A path to an entry of the directory for calls that do not follow links. */
  at<T extends string | Buffer>(name: T): T {
    if (typeof name === 'string') return `${this.#base}/${name}` as T;
    return Buffer.concat([this.#base, SLASH, name]) as Buffer as T;
  }

  /** The path of an entry in messages. */
  pathOf(name: string | Buffer): string {
    return `${this.path}/${name}`;
  }

  /** Whether only this user and root can replace entries of this user, at the first call. */
  get isGuarded(): boolean {
    this.#isGuarded ??= isGuarded(this.#status);
    return this.#isGuarded;
  }

  /** Whether only this user and root can create entries, at the first call. */
  get isPrivate(): boolean {
    return isPrivate(this.#status);
  }

  get ino(): bigint {
    return this.#status.ino;
  }

  get names(): Buffer[] {
    return readdirSync(this.#base, { encoding: 'buffer' });
  }

  /**
   * Opens a directory in it without following links.
   * @param isOurs this process created the entry, and no other user could write to it since
   * @throws the system's error, ENOTDIR also for a link; PullError `option-malformed` as `hold`
   */
  open(name: string | Buffer, isOurs = false): OpenDirectory {
    const [path, target] = [this.pathOf(name), this.at(name)];
    const isSafe = isOurs && this.isGuarded;
    const opened =
      this.#fd === undefined && (isSafe || this.#isSafe(target))
        ? new OpenDirectory(path, Buffer.from(target), undefined, this.#canHold)
        : OpenDirectory.receive({ path, fd: openPathItself(target) });
    if (isSafe) opened.#isGuarded = true;
    return opened;
  }

  /**
   * Returns whether the path of a directory in this one is as good as holding it.
   * @throws as `open`
   */
  #isSafe(target: string | Buffer): boolean {
    if (isGuarded(statDirectory(target))) return true;
    if (this.#canHold) return false;
    throw notSafe(String(target));
  }

  /**
   * Creates a directory in it and opens it.
   * @throws the system's error, EEXIST if the name is taken; PullError `store-broken` if another
   *   user replaces the new directory
   */
  make(name: string | Buffer, mode: number): OpenDirectory {
    mkdirSync(this.at(name), mode);
    const made = this.open(name);
    const isNew = () => made.#status.uid === process.geteuid?.() && made.names.length === 0;
    if (this.isGuarded || isNew()) return made;
    made.close();
    throw changedByOthers(made.path);
  }

  /**
   * Sets owner and times of a symbolic link that was just created. If another user could replace
   * it, the link itself is opened first.
   * @throws the system's error; PullError `store-broken` if another user replaced it
   */
  setLinkAttributes(
    name: Buffer,
    owner: { readonly uid: number; readonly gid: number } | undefined,
    time: number | string,
  ): void {
    const path = this.at(name);
    if (this.isGuarded) {
      if (owner !== undefined) lchownSync(path, owner.uid, owner.gid);
      lutimesSync(path, time, time);
      return;
    }
    const fd = openLinkItself(path);
    try {
      const stat = fstatSync(fd);
      if (!stat.isSymbolicLink() || stat.uid !== process.geteuid?.())
        throw changedByOthers(this.pathOf(name));
      // Resolves to the open link itself and does not follow it.
      const self = pathOfFd(fd);
      if (owner !== undefined) chownSync(self, owner.uid, owner.gid);
      utimesSync(self, time, time);
    } finally {
      closeSync(fd);
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }

  get #status() {
    if (this.#stat === undefined) {
      const { uid, mode, ino } =
        this.#fd === undefined
          ? lstatSync(this.#base, { bigint: true })
          : fstatSync(this.#fd, { bigint: true });
      this.#stat = { uid: Number(uid), mode: Number(mode) & 0o7777, ino };
    }
    return this.#stat;
  }
}

const SLASH = Buffer.from('/');

/**
 * Opens a directory, creating it and its parents if needed.
 * @throws as `OpenDirectory.hold` and `make`
 */
export function makeOpenDirectory(path: string): OpenDirectory {
  if (existsSync(path) || path === dirname(path)) return OpenDirectory.hold(path);
  const parent = makeOpenDirectory(dirname(path));
  try {
    return parent.make(basename(path), 0o777);
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error;
    return parent.open(basename(path)); // Another process created it meanwhile.
  } finally {
    parent.close();
  }
}

export function changedByOthers(path: string): PullError {
  return new PullError('store-broken', `another user is changing ${path}`, {
    hint: 'Choose a destination in a directory that no other user may write to.',
  });
}

function notSafe(path: string): PullError {
  return new PullError(
    'option-malformed',
    `other users can change ${path}, which is not safe on this system`,
    {
      hint: 'Choose a destination in directories that only you or root can write to. Linux with /proc has no such limit.',
    },
  );
}

interface Access {
  readonly uid: number;
  readonly mode: number;
}

/** Windows reports no owner and the same mode for every directory. */
function isPrivate({ uid, mode }: Access): boolean {
  if (process.geteuid === undefined) return true;
  return isTrusted(uid) && (mode & GROUP_OR_OTHERS_WRITE) === 0;
}

function isGuarded(access: Access): boolean {
  return isPrivate(access) || (isTrusted(access.uid) && (access.mode & STICKY) !== 0);
}

function isTrusted(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.();
}

/** Returns the topmost directory on a path in which another user could rename entries. */
function firstUnguarded(real: string): string | undefined {
  const above = dirname(real) === real ? undefined : firstUnguarded(dirname(real));
  if (above !== undefined) return above;
  return isGuarded(statDirectory(real)) ? undefined : real;
}

/** @throws the system's error, ENOTDIR for anything but a directory */
function statDirectory(path: string | Buffer): Stats {
  const stat = lstatSync(path);
  if (!stat.isDirectory()) throw Object.assign(new Error(`ENOTDIR: ${path}`), { code: 'ENOTDIR' });
  return stat;
}

/** PATH_MAX (4096 bytes) allows no deeper path, and each level holds a descriptor. */
const MAX_DEPTH = 2048;
/** Entries removed before yielding to the event loop: some milliseconds. */
const ENTRIES_A_TURN = 100;

/**
 * Removes an entry of a directory and everything below it; an absent entry is no error. Links are
 * removed, never followed: a directory that is replaced by a link meanwhile is removed as a link,
 * or the removal fails.
 * @throws the system's error for an entry that cannot be removed
 */
export async function removeAt(parent: OpenDirectory, name: string | Buffer, depth = 0): Promise<void> {
  if (unlinked(parent, name)) return;
  if (depth >= MAX_DEPTH) throw Object.assign(new Error(parent.path), { code: 'ENAMETOOLONG' });
  const directory = parent.open(name);
  try {
    await emptyDirectory(directory, depth + 1);
  } finally {
    directory.close();
  }
  rmdirSync(parent.at(name));
}

/** Removes every entry of a directory, as `removeAt`. Adds missing permissions of the owner first. */
export async function emptyDirectory(directory: OpenDirectory, depth = 0): Promise<void> {
  const { mode, uid } = statSync(directory.self);
  if ((mode & 0o700) !== 0o700 && uid === process.geteuid?.()) chmodSync(directory.self, 0o700);
  for (const [done, name] of directory.names.entries()) {
    if (done % ENTRIES_A_TURN === 0) await nextTurn();
    await removeAt(directory, name, depth);
  }
}

/** Removes anything but a directory. Returns true if it did or if nothing was there. */
function unlinked(parent: OpenDirectory, name: string | Buffer): boolean {
  const path = parent.at(name);
  try {
    unlinkSync(path);
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT') return true;
    // unlink of a directory fails with EISDIR on Linux and with EPERM elsewhere (POSIX).
    if (code === 'EISDIR' || (code === 'EPERM' && lstatSync(path).isDirectory())) return false;
    throw error;
  }
  return true;
}

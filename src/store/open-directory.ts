import {
  chownSync,
  closeSync,
  existsSync,
  fstatSync,
  lchownSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  utimesSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { followLinks } from '../files/follow-links.js';
import {
  canHoldDirectories,
  openLinkItself,
  openPlaceItself,
  openPlaceWithoutLinks,
  pathOfOpen,
} from '../files/guarded-directory.js';
import { systemCode } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import type { SharedDirectory } from '../pool/messages.js';

const GROUP_OR_OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/**
 * A directory that stays the same one whatever other users rename. Where one of them could rename a directory on the path to it,
 * it is held open: Linux resolves `/proc/self/fd/N/NAME` from the open directory N and looks up NAME alone, as openat(2) would.
 * Where none can, its path is as good, and takes 5 % less time. Without `/proc` there is no other way.
 */
export class OpenDirectory {
  /** What messages call it. */
  readonly path: string;
  readonly #base: Buffer;
  readonly #fd: number | undefined;
  readonly #canHold: boolean;
  #stat: { readonly uid: number; readonly mode: number; readonly ino: bigint } | undefined;
  #isGuarded: boolean | undefined;

  private constructor(path: string, base: Buffer, fd?: number, canHold = canHoldDirectories()) {
    this.path = path;
    this.#base = base;
    this.#fd = fd;
    this.#canHold = canHold;
  }

  /**
   * Holds the directory that a path leads to, links followed as `followLinks` does.
   * @throws the system's error, ENOTDIR for a link that came meanwhile, too; PullError `option-malformed` as `followLinks`, and where
   *   other users can change what is on the path and it cannot be held
   */
  static hold(path: string, canHold = canHoldDirectories()): OpenDirectory {
    const real = followLinks(path);
    const unguarded = firstUnguarded(real);
    if (unguarded === undefined) return new OpenDirectory(real, Buffer.from(real), undefined, canHold);
    if (!canHold) throw notSafe(unguarded);
    return OpenDirectory.receive({ path, fd: openPlaceWithoutLinks(real) });
  }

  /** A directory that another thread holds, and closes. */
  static receive({ path, fd }: SharedDirectory): OpenDirectory {
    if (fd === undefined) return new OpenDirectory(path, Buffer.from(path));
    return new OpenDirectory(path, Buffer.from(pathOfOpen(fd)), fd);
  }

  /** For other threads, while this one holds it. */
  get shared(): SharedDirectory {
    return { path: this.path, ...(this.#fd !== undefined && { fd: this.#fd }) };
  }

  /** A path to the directory itself, for calls that follow links: chmod, chown, utimes, readdir. */
  get self(): Buffer {
    return this.#base;
  }

  /** A path to what has this name here, for calls that do not follow it. */
  at<T extends string | Buffer>(name: T): T {
    if (typeof name === 'string') return `${this.#base}/${name}` as T;
    return Buffer.concat([this.#base, SLASH, name]) as Buffer as T;
  }

  /** What messages call a name in it. */
  pathOf(name: string | Buffer): string {
    return `${this.path}/${name}`;
  }

  /** Whether no other user but root can put something else under a name of ours. As it was when it was first asked. */
  get isGuarded(): boolean {
    this.#isGuarded ??= isGuarded(this.#status);
    return this.#isGuarded;
  }

  /** Whether no other user but root can put anything into it. As it was when it was first asked. */
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
   * Holds a directory in it, never what a link leads to. `isOurs`: this process made it, and nobody may write to it since.
   * @throws the system's error: ENOTDIR for a link, too; PullError `option-malformed` as `hold`
   */
  open(name: string | Buffer, isOurs = false): OpenDirectory {
    const [path, place] = [this.pathOf(name), this.at(name)];
    const isSafe = isOurs && this.isGuarded;
    const held =
      this.#fd === undefined && (isSafe || this.#isSafe(place))
        ? new OpenDirectory(path, Buffer.from(place), undefined, this.#canHold)
        : OpenDirectory.receive({ path, fd: openPlaceItself(place) });
    if (isSafe) held.#isGuarded = true;
    return held;
  }

  /** Whether a directory in this one, which is found by its path, can be, too. @throws as `open` */
  #isSafe(place: string | Buffer): boolean {
    const stat = lstatSync(place);
    if (!stat.isDirectory()) throw Object.assign(new Error(`ENOTDIR: ${place}`), { code: 'ENOTDIR' });
    if (isGuarded(stat)) return true;
    if (this.#canHold) return false;
    throw notSafe(String(place));
  }

  /**
   * Makes a directory in it and holds that.
   * @throws the system's error: EEXIST when the name is taken; PullError `store-broken` when something else stands there a moment later
   */
  make(name: string | Buffer, mode: number): OpenDirectory {
    mkdirSync(this.at(name), mode);
    const held = this.open(name);
    if (this.isGuarded || held.#isNew) return held;
    held.close();
    throw changedByOthers(held.path);
  }

  /**
   * Sets owner and time of a symbolic link that was just made. Where another user could put something else under its name, the
   * link itself is held.
   * @throws the system's error; PullError `store-broken` when it is not there any more
   */
  finishLink(name: Buffer, owner: Owner | undefined, time: number | string): void {
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
      // Leads to what is held and no further.
      const self = pathOfOpen(fd);
      if (owner !== undefined) chownSync(self, owner.uid, owner.gid);
      utimesSync(self, time, time);
    } finally {
      closeSync(fd);
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }

  get #isNew(): boolean {
    return this.#status.uid === process.geteuid?.() && this.names.length === 0;
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

/** Holds a directory, made with those around it where they are not there yet. @throws as `OpenDirectory.hold` and `make` */
export function makeOpenDirectory(path: string): OpenDirectory {
  if (existsSync(path) || path === dirname(path)) return OpenDirectory.hold(path);
  const parent = makeOpenDirectory(dirname(path));
  try {
    return openOrMake(parent, basename(path));
  } finally {
    parent.close();
  }
}

function openOrMake(parent: OpenDirectory, name: string): OpenDirectory {
  try {
    return parent.make(name, 0o777);
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error;
    return parent.open(name); // another process made it meanwhile
  }
}

/** The error for something that is not what this process put there. */
export function changedByOthers(path: string): PullError {
  return new PullError('store-broken', `another user changes what is at ${path}`, {
    hint: 'Choose a destination in a directory that no other user may write to.',
  });
}

function notSafe(path: string): PullError {
  return new PullError(
    'option-malformed',
    `other users may change what is in ${path}, which is not safe on this system`,
    {
      hint: 'Choose a destination in directories that only you or root may write to; Linux with /proc takes any.',
    },
  );
}

interface Access {
  readonly uid: number;
  readonly mode: number;
}

/** Windows tells no owner, and the same mode of every directory. */
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

/** The directory on a path without links in which another user could rename something, itself included. */
function firstUnguarded(real: string): string | undefined {
  const above = dirname(real) === real ? undefined : firstUnguarded(dirname(real));
  if (above !== undefined) return above;
  const stat = lstatSync(real);
  if (!stat.isDirectory()) throw Object.assign(new Error(`ENOTDIR: ${real}`), { code: 'ENOTDIR' });
  return isGuarded(stat) ? undefined : real;
}

import {
  chownSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lchownSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  utimesSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { PullError } from '../format/error.js';
import type { SharedDirectory } from '../pool/messages.js';
import { systemCode } from './storage-error.js';

/**
 * open(2): a descriptor that stands for a place and needs no permission to read it. Node has no name for the flag; its value is the
 * same on every Linux that Node runs on.
 */
const O_PATH = 0o10000000;

const GROUP_OR_OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/**
 * A directory that stays the same one whatever others rename: Linux resolves `/proc/self/fd/N/NAME` from the open directory N and
 * looks up NAME alone, as openat(2) would. Without `/proc` it is a path, and only a directory is taken in which no
 * other user can rename anything.
 */
export class HeldDirectory {
  /** What messages call it. */
  readonly path: string;
  readonly #fd: number | undefined;
  readonly #base: Buffer;
  #stat: { readonly uid: number; readonly mode: number; readonly ino: bigint } | undefined;

  private constructor(path: string, base: Buffer, fd?: number) {
    this.path = path;
    this.#fd = fd;
    this.#base = base;
  }

  /**
   * Holds the directory that a path leads to, links followed.
   * @throws the system's error; PullError `option-malformed` where it cannot be held and other users can change what is on the path
   */
  static hold(path: string, canHold = canHoldDirectories()): HeldDirectory {
    if (canHold) return HeldDirectory.receive({ path, fd: openSync(path, O_PATH | constants.O_DIRECTORY) });
    for (let above = path; ; above = dirname(above)) {
      requireGuarded(new HeldDirectory(above, Buffer.from(above)));
      if (above === dirname(above)) return new HeldDirectory(path, Buffer.from(path));
    }
  }

  /** A directory that another thread holds, and closes. */
  static receive({ path, fd }: SharedDirectory): HeldDirectory {
    if (fd === undefined) return new HeldDirectory(path, Buffer.from(path));
    return new HeldDirectory(path, Buffer.from(`/proc/self/fd/${fd}`), fd);
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
    return (
      this.#isTrusted &&
      ((this.#status.mode & GROUP_OR_OTHERS_WRITE) === 0 || (this.#status.mode & STICKY) !== 0)
    );
  }

  /** Whether no other user but root can put anything into it. As it was when it was first asked. */
  get isPrivate(): boolean {
    return this.#isTrusted && (this.#status.mode & GROUP_OR_OTHERS_WRITE) === 0;
  }

  get ino(): bigint {
    return this.#status.ino;
  }

  get names(): Buffer[] {
    return readdirSync(this.#base, { encoding: 'buffer' });
  }

  /** Holds a directory in it, never what a link leads to. @throws the system's error: ENOTDIR for a link, too */
  open(name: string | Buffer): HeldDirectory {
    const path = this.pathOf(name);
    const place = this.at(name);
    if (this.#fd !== undefined) {
      const fd = openSync(place, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
      return HeldDirectory.receive({ path, fd });
    }
    if (!lstatSync(place).isDirectory()) throw Object.assign(new Error(path), { code: 'ENOTDIR' });
    const held = new HeldDirectory(path, Buffer.from(place));
    requireGuarded(held);
    return held;
  }

  /**
   * Makes a directory in it and holds that.
   * @throws the system's error: EEXIST when the name is taken; PullError `store-broken` when something else stands there a moment later
   */
  make(name: string | Buffer, mode: number): HeldDirectory {
    mkdirSync(this.at(name), mode);
    const held = this.open(name);
    if (this.isGuarded || held.#isNew) return held;
    held.close();
    throw changedByOthers(held.path);
  }

  /**
   * Sets owner and time of a symbolic link that was just made. Where another user could put something else under its name, the link itself is held.
   * @throws the system's error; PullError `store-broken` when it is not there any more
   */
  finishLink(name: Buffer, owner: Owner | undefined, time: number | Date): void {
    const path = this.at(name);
    if (this.isGuarded) {
      if (owner !== undefined) lchownSync(path, owner.uid, owner.gid);
      lutimesSync(path, time, time);
      return;
    }
    const fd = openSync(path, O_PATH | constants.O_NOFOLLOW);
    try {
      const stat = fstatSync(fd);
      if (!stat.isSymbolicLink() || stat.uid !== process.geteuid?.())
        throw changedByOthers(this.pathOf(name));
      // Leads to what is held and no further.
      const self = `/proc/self/fd/${fd}`;
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

  get #isTrusted(): boolean {
    return process.geteuid === undefined || [0, process.geteuid()].includes(this.#status.uid);
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

/** Holds a directory, made with those around it where they are not there yet. @throws as `HeldDirectory.hold` and `make` */
export function makeHeldDirectory(path: string): HeldDirectory {
  if (existsSync(path) || path === dirname(path)) return HeldDirectory.hold(path);
  const parent = makeHeldDirectory(dirname(path));
  try {
    return openOrMake(parent, basename(path));
  } finally {
    parent.close();
  }
}

function openOrMake(parent: HeldDirectory, name: string): HeldDirectory {
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

function requireGuarded(held: HeldDirectory): void {
  if (held.isGuarded) return;
  throw new PullError(
    'option-malformed',
    `other users may change what is in ${held.path}, which is not safe on this system`,
    {
      hint: 'Choose a destination in directories that only you or root may write to; Linux with /proc takes any.',
    },
  );
}

let canHold: boolean | undefined;

/** Whether `/proc/self/fd` leads to the open files of this process. */
function canHoldDirectories(): boolean {
  canHold ??= process.platform === 'linux' && leadsToOpenFiles();
  return canHold;
}

function leadsToOpenFiles(): boolean {
  const fd = openSync('/', O_PATH | constants.O_DIRECTORY);
  try {
    return existsSync(join('/proc/self/fd', String(fd), '.'));
  } finally {
    closeSync(fd);
  }
}

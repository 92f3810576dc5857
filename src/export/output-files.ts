import { randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, lstatSync, openSync } from 'node:fs';
import { rmdir, unlink } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isFifo, moveFile } from '../files/atomic-file.js';
import { changedByOthers, emptyDirectory, OpenDirectory, removeAt } from '../files/open-directory.js';
import { isLeftBehind, pidNamespaceId } from '../files/process-id.js';
import { closeWritten, systemCode, wrapFsError } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import type { SpecialFile } from '../pool/messages.js';

/** Access for the owner alone until it is complete. */
const UNFINISHED_MODE = 0o700;

/** Returns a unique, unguessable name for what is to become `name`. */
function unfinishedName(name: string): string {
  return `${name}.part-${process.pid}-${pidNamespaceId()}-${randomBytes(8).toString('hex')}`;
}

/**
 * Removes unfinished files and directories that killed exports of `name` left, as far as possible.
 * Only those of this user, and only where no other user may write: elsewhere a name proves nothing.
 */
async function removeAbandoned(directory: OpenDirectory, name: string): Promise<void> {
  const prefix = `${name}.part-`;
  try {
    if (!directory.isPrivate) return;
    for (const entry of directory.names.map(String).filter((each) => each.startsWith(prefix)))
      if (isAbandoned(directory, entry, entry.slice(prefix.length)))
        await removeAt(directory, entry).catch(() => {});
  } catch {
    // The directory cannot be read; the write that follows reports why.
  }
}

function isAbandoned(directory: OpenDirectory, name: string, suffix: string): boolean {
  const [, pid, namespace] = /^([1-9][0-9]{0,9})-([0-9a-f]*)-(?:[0-9a-f]{8}){1,2}$/.exec(suffix) ?? [];
  if (pid === undefined) return false;
  const stat = lstatSync(directory.at(name), { throwIfNoEntry: false });
  if (stat === undefined || !(stat.isFile() || stat.isDirectory())) return false;
  if (process.geteuid !== undefined && stat.uid !== process.geteuid()) return false;
  return isLeftBehind(Number(pid), namespace ?? '', stat.ctimeMs);
}

/** A file or directory under an unfinished name, which is renamed when it is complete. */
class Unfinished {
  protected readonly directory: OpenDirectory;
  protected readonly part: string;
  readonly #name: string;

  constructor(directory: OpenDirectory, name: string) {
    this.directory = directory;
    this.#name = name;
    this.part = unfinishedName(name);
  }

  /** Path for messages. */
  get path(): string {
    return this.directory.pathOf(this.part);
  }

  /** Renames the inode `ino`.
   * @throws PullError as `storageError`; `store-broken` when another user replaced it */
  protected async rename(ino: bigint): Promise<void> {
    const { directory, part } = this;
    const path = directory.pathOf(this.#name);
    if (!isInode(directory, part, ino)) throw changedByOthers(this.path);
    await moveFile(directory.at(part), directory.at(this.#name), `rename ${this.path} to ${path}`);
    if (directory.isGuarded || isInode(directory, this.#name, ino) || isOwn(directory, this.#name)) return;
    throw changedByOthers(path);
  }
}

/**
 * A new file, which no other user can have planted. Threads write to its descriptor; the main
 * thread closes it.
 */
export class UnfinishedFile extends Unfinished {
  readonly fd: number;
  readonly #ino: bigint;
  #state: 'open' | 'closed' | 'done' = 'open';

  /** Creates it in a directory. @throws PullError as `storageError` */
  static async create(directory: OpenDirectory, name: string): Promise<UnfinishedFile> {
    await removeAbandoned(directory, name);
    return new UnfinishedFile(directory, name);
  }

  private constructor(directory: OpenDirectory, name: string) {
    super(directory, name);
    // O_EXCL: opens no existing file and follows no link.
    this.fd = wrapFsError(`create ${this.path}`, () => openSync(directory.at(this.part), 'wx'));
    this.#ino = fstatSync(this.fd, { bigint: true }).ino;
  }

  /** Closes it and renames it to its final name.
   * @throws PullError as `storageError`; `store-broken` */
  async publish(): Promise<void> {
    this.#state = 'closed';
    closeWritten(this.fd, this.path);
    await this.rename(this.#ino);
    this.#state = 'done';
  }

  /**
   * Removes it unless it was published; to be called when no thread writes. Ignores errors: another
   * one came first.
   */
  async discard(): Promise<void> {
    if (this.#state === 'done') return;
    if (this.#state === 'open') closeSync(this.fd);
    this.#state = 'done';
    if (isInode(this.directory, this.part, this.#ino))
      await unlink(this.directory.at(this.part)).catch(() => {});
  }
}

/**
 * Returns what `work` returns. It writes and publishes the file that is to be at `path`; if it
 * does not publish it, the file is removed.
 * @throws PullError as `storageError`; what `work` throws
 */
export async function withNewFile<T>(path: string, work: (file: UnfinishedFile) => Promise<T>): Promise<T> {
  const directory = wrapFsError(`open ${dirname(path)}`, () => OpenDirectory.hold(dirname(path)));
  try {
    const file = await UnfinishedFile.create(directory, basename(path));
    try {
      return await work(file);
    } finally {
      await file.discard();
    }
  } finally {
    directory.close();
  }
}

/** A new directory, for this user alone. */
export class UnfinishedDirectory extends Unfinished {
  readonly opened: OpenDirectory;

  /** Creates it in a directory. @throws PullError as `storageError` */
  static async create(directory: OpenDirectory, name: string): Promise<UnfinishedDirectory> {
    await removeAbandoned(directory, name);
    return new UnfinishedDirectory(directory, name);
  }

  private constructor(directory: OpenDirectory, name: string) {
    super(directory, name);
    this.opened = wrapFsError(`make the directory ${this.path}`, () =>
      directory.make(this.part, UNFINISHED_MODE),
    );
  }

  /** Renames it to its final name, which may be an empty directory.
   * @throws PullError as `storageError`; `store-broken` */
  publish(): Promise<void> {
    return this.rename(this.opened.ino);
  }

  /** Removes it with all entries, as far as possible. */
  async discard(): Promise<void> {
    await emptyDirectory(this.opened).catch(() => {});
    await rmdir(this.directory.at(this.part)).catch(() => {});
  }
}

function isInode(directory: OpenDirectory, name: string, ino: bigint): boolean {
  return lstatSync(directory.at(name), { bigint: true, throwIfNoEntry: false })?.ino === ino;
}

/** Returns whether a name belongs to this user: a concurrent export may have published its own. */
function isOwn(directory: OpenDirectory, name: string): boolean {
  return lstatSync(directory.at(name), { throwIfNoEntry: false })?.uid === process.geteuid?.();
}

/** Time for a user or a script to start the reader of a pipe. */
const READER_LIMIT_MS = 60_000;

/** Interval at which a pipe without a reader is opened again. */
const POLL_MS = 100;

/**
 * O_NONBLOCK, as a thread in a blocking call cannot be ended: writes fail with EAGAIN instead.
 * O_NOCTTY, so that no terminal becomes the controlling one.
 */
const FLAGS = constants.O_WRONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOCTTY ?? 0);

/**
 * Opens a device or a pipe for writes that fail with EAGAIN instead of blocking. Waits up to
 * `limitMs` for a reader of a pipe.
 * @throws PullError `option-malformed` when a pipe has no reader; `store-broken` for a path that
 *   has become a file or a link, which is left alone; as `storageError`
 */
export async function openSpecialFile(file: SpecialFile, limitMs = READER_LIMIT_MS): Promise<number> {
  const { path } = file;
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const fd = wrapFsError(`open ${path}`, () => openUnlessUnread(file));
    if (fd !== undefined) return checked(fd, path);
    if (waitedMs >= limitMs) {
      throw new PullError('option-malformed', `the pipe ${path} has no reader`, {
        hint: `Start its reader within ${Math.ceil(limitMs / 1000)} s, or name a file.`,
      });
    }
    await sleep(POLL_MS);
  }
}

/** Returns the descriptor, or undefined for a pipe without a reader. */
function openUnlessUnread({ at, follows }: SpecialFile): number | undefined {
  try {
    return openSync(at, FLAGS | (follows ? 0 : (constants.O_NOFOLLOW ?? 0)));
  } catch (error) {
    // Sockets and missing devices fail with ENXIO, too, but permanently.
    if (systemCode(error) !== 'ENXIO' || !isFifo(at)) throw error;
    return undefined;
  }
}

function checked(fd: number, path: string): number {
  if (!fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw changedByOthers(path);
}

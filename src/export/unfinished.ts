import { randomBytes } from 'node:crypto';
import { closeSync, fstatSync, lstatSync, openSync } from 'node:fs';
import { rmdir, unlink } from 'node:fs/promises';
import { moveFile } from '../files/atomic-file.js';
import { changedByOthers, type OpenDirectory } from '../files/open-directory.js';
import { emptyDirectory, removeAt } from '../files/remove-tree.js';
import { closeWritten, wrapFsError } from '../files/storage-error.js';
import { isProcessAlive, pidNamespaceId } from '../store/leases.js';

/** For its owner alone until it is whole. */
const UNFINISHED_MODE = 0o700;

/** Not changed for so long, it is nobody's, wherever its process was. */
const ABANDONED_MS = 24 * 3_600_000;

/** A name for what is to become `name`, which no other export has, be it of this process, and nobody can guess. */
function unfinishedName(name: string): string {
  return `${name}.part-${process.pid}-${pidNamespaceId()}-${randomBytes(8).toString('hex')}`;
}

/**
 * Removes what exports of `name` left in a directory whose processes were killed, as far as it can be. Only what belongs to this user, and
 * only where no other user may write: elsewhere a name says nothing about what it stands for.
 */
async function removeAbandoned(directory: OpenDirectory, name: string): Promise<void> {
  const prefix = `${name}.part-`;
  try {
    if (!directory.isPrivate) return;
    for (const left of directory.names.map(String).filter((left) => left.startsWith(prefix)))
      if (isAbandoned(directory, left, left.slice(prefix.length)))
        await removeAt(directory, left).catch(() => {});
  } catch {
    // The directory cannot be read; the write that follows reports why.
  }
}

/**
 * The number of a process says nothing about those of another container or another machine; and in containers every process may
 * have the same one, one after the other. Asked for is the time of the last change, which no layer can set.
 */
function isAbandoned(directory: OpenDirectory, name: string, holder: string): boolean {
  const [, pid, place] = /^([1-9][0-9]{0,9})-([0-9a-f]*)-(?:[0-9a-f]{8}){1,2}$/.exec(holder) ?? [];
  if (pid === undefined) return false;
  const stat = lstatSync(directory.at(name), { throwIfNoEntry: false });
  if (stat === undefined || !(stat.isFile() || stat.isDirectory())) return false;
  if (process.geteuid !== undefined && stat.uid !== process.geteuid()) return false;
  const isHere = place !== '' && place === pidNamespaceId();
  if (isHere && Number(pid) !== process.pid) return !isProcessAlive(Number(pid));
  const agoMs = isHere ? 1000 * process.uptime() : ABANDONED_MS;
  return Date.now() - stat.ctimeMs > agoMs;
}

/** What is made under an unfinished name and gets its own when it is whole. */
class Unfinished {
  protected readonly directory: OpenDirectory;
  protected readonly part: string;
  readonly #name: string;

  constructor(directory: OpenDirectory, name: string) {
    this.directory = directory;
    this.#name = name;
    this.part = unfinishedName(name);
  }

  /** What messages call it. */
  get path(): string {
    return this.directory.pathOf(this.part);
  }

  /** Renames the inode `ino`. @throws PullError as `storageError`; `store-broken` when another user put something else there */
  protected async rename(ino: bigint): Promise<void> {
    const { directory, part } = this;
    const path = directory.pathOf(this.#name);
    if (!isInode(directory, part, ino)) throw changedByOthers(this.path);
    await moveFile(directory.at(part), directory.at(this.#name), `rename ${this.path} to ${path}`);
    if (directory.isGuarded || isInode(directory, this.#name, ino) || isOwn(directory, this.#name)) return;
    throw changedByOthers(path);
  }
}

/** A file that nobody else has opened or can have planted. Threads write to its descriptor; only this one closes it. */
export class UnfinishedFile extends Unfinished {
  readonly fd: number;
  readonly #ino: bigint;
  #state: 'open' | 'closed' | 'done' = 'open';

  /** Makes it in a directory. @throws PullError as `storageError` */
  static async create(directory: OpenDirectory, name: string): Promise<UnfinishedFile> {
    await removeAbandoned(directory, name);
    return new UnfinishedFile(directory, name);
  }

  private constructor(directory: OpenDirectory, name: string) {
    super(directory, name);
    // O_EXCL: neither a file that is there is taken, nor a link followed.
    this.fd = wrapFsError(`create ${this.path}`, () => openSync(directory.at(this.part), 'wx'));
    this.#ino = fstatSync(this.fd, { bigint: true }).ino;
  }

  /** Closes it and gives it its name, in the place of what has it. @throws PullError as `storageError`; `store-broken` */
  async publish(): Promise<void> {
    this.#state = 'closed';
    closeWritten(this.fd, this.path);
    await this.rename(this.#ino);
    this.#state = 'done';
  }

  /** Removes it unless it has its name, when no thread writes to it any more; what it failed for has an error of its own. */
  async discard(): Promise<void> {
    if (this.#state === 'done') return;
    if (this.#state === 'open') closeSync(this.fd);
    this.#state = 'done';
    if (isInode(this.directory, this.part, this.#ino))
      await unlink(this.directory.at(this.part)).catch(() => {});
  }
}

/** The same as a directory, for this user alone. */
export class UnfinishedDirectory extends Unfinished {
  readonly held: OpenDirectory;

  /** Makes it in a directory. @throws PullError as `storageError` */
  static async create(directory: OpenDirectory, name: string): Promise<UnfinishedDirectory> {
    await removeAbandoned(directory, name);
    return new UnfinishedDirectory(directory, name);
  }

  private constructor(directory: OpenDirectory, name: string) {
    super(directory, name);
    this.held = wrapFsError(`make the directory ${this.path}`, () =>
      directory.make(this.part, UNFINISHED_MODE),
    );
  }

  /** Gives it its name, where nothing but an empty directory may be. @throws PullError as `storageError`; `store-broken` */
  publish(): Promise<void> {
    return this.rename(this.held.ino);
  }

  /** Removes it with all that is in it, as far as it can be. */
  async discard(): Promise<void> {
    await emptyDirectory(this.held).catch(() => {});
    await rmdir(this.directory.at(this.part)).catch(() => {});
  }
}

function isInode(directory: OpenDirectory, name: string, ino: bigint): boolean {
  return lstatSync(directory.at(name), { bigint: true, throwIfNoEntry: false })?.ino === ino;
}

/** Whether what has this name belongs to this user: another export may have put its own there by now. */
function isOwn(directory: OpenDirectory, name: string): boolean {
  return lstatSync(directory.at(name), { throwIfNoEntry: false })?.uid === process.geteuid?.();
}

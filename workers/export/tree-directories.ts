import { chmodSync, chownSync, linkSync, lstatSync, mkdirSync, utimesSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isPlain, modeFor, ownerFor } from '../../src/export/abilities.js';
import { DIRECTORY, fileTime, HARD_LINK, isRoot, NO_ROW, nameAt } from '../../src/export/file-tree.js';
import { changedByOthers, OpenDirectory, removeAt } from '../../src/files/open-directory.js';
import { storageError, systemCode, wrapFsError, wrapFsErrorAsync } from '../../src/files/storage-error.js';
import type { FinishFilesTask, MakeDirectoriesTask, WriteTreeTask } from '../../src/pool/messages.js';

/** Creates every directory of the tree, parents first, in an existing directory. */
export async function makeDirectories(task: MakeDirectoriesTask): Promise<undefined> {
  const { tree } = task;
  const directories = new TreeDirectories(task);
  try {
    for (let row = 0; row < tree.count; row++) {
      if (row % ROWS_A_TURN === 0) await nextTurn();
      if (tree.type[row] === DIRECTORY && !isRoot(tree, row)) await directories.make(row);
    }
  } finally {
    directories.close();
  }
}

/**
 * Creates hard links, then sets the attributes of directories, the deepest first, as the mode of a
 * parent may forbid access.
 */
export async function finishFiles(task: FinishFilesTask): Promise<undefined> {
  const { tree } = task;
  const directories = new TreeDirectories(task);
  try {
    for (let row = 0; row < tree.count; row++) {
      if (row % ROWS_A_TURN === 0) await nextTurn();
      if (tree.type[row] === HARD_LINK) await link(task, directories, row);
    }
    for (let row = tree.count - 1; row >= 0; row--) {
      if (row % ROWS_A_TURN === 0) await nextTurn();
      if (tree.type[row] === DIRECTORY && !isRoot(tree, row)) finishDirectory(task, directories, row);
    }
  } finally {
    directories.close();
  }
}

async function link(
  { tree, replace, abilities }: FinishFilesTask,
  directories: TreeDirectories,
  row: number,
): Promise<void> {
  const target = tree.target[row]!;
  const source = directories.around(target);
  const directory = directories.around(row, source);
  const from = source.at(nameAt(tree, target));
  // The target may be a device that could not be created.
  if (!isPlain(tree, target, abilities) && lstatSync(from, { throwIfNoEntry: false }) === undefined) return;
  const name = nameAt(tree, row);
  await create(directory, name, replace, () => linkSync(from, directory.at(name)));
}

function finishDirectory(
  { tree, abilities }: FinishFilesTask,
  directories: TreeDirectories,
  row: number,
): void {
  const { self, path } = directories.directory(row);
  wrapFsError(`finish ${path}`, () => {
    const owner = ownerFor(tree, row, abilities);
    if (owner !== undefined) chownSync(self, owner.uid, owner.gid);
    chmodSync(self, modeFor(tree, row, abilities));
    const time = fileTime(tree.mtimeSeconds[row]!, tree.mtimeNanos[row]!);
    utimesSync(self, time, time);
  });
}

/** Rows processed before the thread yields to other tasks: some milliseconds. */
export const ROWS_A_TURN = 100;

/**
 * Calls `make` to create `name` in a directory. With `replace`, removes what has that name,
 * whatever it is; it is never written to or followed.
 * @throws PullError as `storageError`
 */
export async function create<T>(
  directory: OpenDirectory,
  name: Buffer,
  replace: boolean,
  make: () => T,
): Promise<T> {
  try {
    return make();
  } catch (error) {
    if (!replace || systemCode(error) !== 'EEXIST')
      throw storageError(error, `create ${directory.pathOf(name)}`);
  }
  return wrapFsErrorAsync(`replace ${directory.pathOf(name)}`, async () => {
    await removeAt(directory, name);
    return make();
  });
}

/**
 * Limit of open directories: adjacent files share them. Four threads stay far below 1024 open
 * files.
 */
export const MAX_OPEN_DIRECTORIES = 64;

/** Access for this user alone while files are created in it, whatever its final mode. */
export const WRITABLE = 0o700;

/** Opens the directories of a tree at its target, each relative to its parent. */
export class TreeDirectories {
  readonly #task: WriteTreeTask;
  readonly #root: OpenDirectory;
  /** Open directories by row, least recently used first. */
  readonly #open = new Map<number, OpenDirectory>();
  #last = NO_ROW;

  constructor(task: WriteTreeTask) {
    this.#task = task;
    this.#root = OpenDirectory.receive(task.directory);
  }

  /**
   * Returns the directory of a row, or the root for `NO_ROW`. Valid until the next call, and during
   * it if passed as `kept`.
   * @throws PullError as `storageError`; `store-broken` when it is not the one that `make` created
   *   or found
   */
  directory(row: number, kept?: OpenDirectory): OpenDirectory {
    const known = row === NO_ROW ? this.#root : this.#known(row);
    if (known !== undefined) return known;
    const { parent } = this.#task.tree;
    const missing = [row];
    let opened: OpenDirectory | undefined;
    for (let above = parent[row]!; opened === undefined; above = parent[above]!) {
      opened = above === NO_ROW ? this.#root : this.#known(above);
      if (opened === undefined) missing.push(above);
    }
    for (const below of missing.reverse()) {
      opened = this.#openRow(opened, below);
      this.#keep(below, opened, kept);
    }
    return opened;
  }

  /** Returns the parent directory of a row. @throws as `directory` */
  around(row: number, kept?: OpenDirectory): OpenDirectory {
    return this.directory(this.#task.tree.parent[row]!, kept);
  }

  /** Creates the directory of a row; with `replace` an existing one is used.
   * @throws PullError as `storageError` */
  async make(row: number): Promise<void> {
    const { tree, replace, begun, inodes } = this.#task;
    const parent = this.around(row);
    const name = nameAt(tree, row);
    // If nobody can replace it, it is opened later, when there is something to create in it.
    if (!replace && parent.isGuarded)
      // With `recursive`, an existing directory is no error.
      return create(parent, name, replace, () => {
        mkdirSync(parent.at(name), { mode: WRITABLE, recursive: begun });
      });
    const opened =
      (replace && takeOver(parent, name)) ||
      (await create(parent, name, replace, () => parent.make(name, WRITABLE)));
    if (!parent.isGuarded) inodes[row] = opened.ino;
    this.#keep(row, opened);
  }

  close(): void {
    for (const opened of this.#open.values()) opened.close();
    this.#open.clear();
  }

  #known(row: number): OpenDirectory | undefined {
    const opened = this.#open.get(row);
    if (opened === undefined || row === this.#last) return opened;
    this.#last = row;
    this.#open.delete(row);
    this.#open.set(row, opened);
    return opened;
  }

  #openRow(parent: OpenDirectory, row: number): OpenDirectory {
    const name = nameAt(this.#task.tree, row);
    const opened = wrapFsError(`open ${parent.pathOf(name)}`, () => parent.open(name, !this.#task.replace));
    if (parent.isGuarded || opened.ino === this.#task.inodes[row]) return opened;
    opened.close();
    throw changedByOthers(opened.path);
  }

  #keep(row: number, opened: OpenDirectory, kept?: OpenDirectory): void {
    this.#open.set(row, opened);
    this.#last = row;
    if (this.#open.size <= MAX_OPEN_DIRECTORIES) return;
    for (const [oldest, unused] of this.#open) {
      if (unused === kept) continue;
      this.#open.delete(oldest);
      unused.close();
      return;
    }
  }
}

/**
 * Opens an existing directory and makes it writable; undefined if the name is missing or something
 * else.
 */
function takeOver(parent: OpenDirectory, name: Buffer): OpenDirectory | undefined {
  let opened: OpenDirectory | undefined;
  try {
    opened = parent.open(name);
    chmodSync(opened.self, WRITABLE);
    return opened;
  } catch (error) {
    opened?.close();
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return undefined;
    throw storageError(error, `open ${parent.pathOf(name)}`);
  }
}

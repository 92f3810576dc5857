import { chmodSync, chownSync, linkSync, lstatSync, mkdirSync, utimesSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isPlain, modeFor, ownerFor } from '../../src/export/abilities.js';
import { DIRECTORY, fileTime, HARD_LINK, isRoot, NO_ROW, nameAt } from '../../src/export/file-tree.js';
import { changedByOthers, OpenDirectory } from '../../src/files/open-directory.js';
import { removeAt } from '../../src/files/remove-tree.js';
import { storageError, systemCode, wrapFsError, wrapFsErrorAsync } from '../../src/files/storage-error.js';
import type { FinishFilesTask, MakeDirectoriesTask, WriteTreeTask } from '../../src/pool/messages.js';

/** Makes every directory of the tree, parents first; the one they are made in is there. */
export async function makeDirectories(task: MakeDirectoriesTask): Promise<undefined> {
  const { tree } = task;
  const held = new TreeDirectories(task);
  try {
    for (let row = 0; row < tree.count; row++) {
      if (row % ROWS_A_TURN === 0) await nextTurn();
      if (tree.type[row] === DIRECTORY && !isRoot(tree, row)) await held.make(row);
    }
  } finally {
    held.close();
  }
}

/** Makes hard links, then gives directories what they are to have, the deepest first: a parent may be closed then. */
export async function finishFiles(task: FinishFilesTask): Promise<undefined> {
  const { tree } = task;
  const held = new TreeDirectories(task);
  try {
    for (let row = 0; row < tree.count; row++) {
      if (row % ROWS_A_TURN === 0) await nextTurn();
      if (tree.type[row] === HARD_LINK) await link(task, held, row);
    }
    for (let row = tree.count - 1; row >= 0; row--) {
      if (row % ROWS_A_TURN === 0) await nextTurn();
      if (tree.type[row] === DIRECTORY && !isRoot(tree, row)) finishDirectory(task, held, row);
    }
  } finally {
    held.close();
  }
}

async function link(
  { tree, replace, abilities }: FinishFilesTask,
  held: TreeDirectories,
  row: number,
): Promise<void> {
  const target = tree.target[row]!;
  const source = held.around(target);
  const directory = held.around(row, source);
  const from = source.at(nameAt(tree, target));
  // Another name of a device that could not be made cannot be made either.
  if (!isPlain(tree, target, abilities) && lstatSync(from, { throwIfNoEntry: false }) === undefined) return;
  const name = nameAt(tree, row);
  await place(directory, name, replace, () => linkSync(from, directory.at(name)));
}

function finishDirectory({ tree, abilities }: FinishFilesTask, held: TreeDirectories, row: number): void {
  const { self, path } = held.directory(row);
  wrapFsError(`finish ${path}`, () => {
    const owner = ownerFor(tree, row, abilities);
    if (owner !== undefined) chownSync(self, owner.uid, owner.gid);
    chmodSync(self, modeFor(tree, row, abilities));
    const time = fileTime(tree.mtimeSeconds[row]!, tree.mtimeNanos[row]!);
    utimesSync(self, time, time);
  });
}

/** Rows dealt with before the thread's other business has its turn: some milliseconds. */
export const ROWS_A_TURN = 100;

/**
 * Does what makes `name` in a directory. With `replace`, what is there under that name goes first, whatever it is; it is never
 * written to or followed.
 * @throws PullError as `storageError`
 */
export async function place<T>(
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

/** Directories held at a time: neighbours in a layer are in few. Four threads stay far below 1024 open files. */
const MAX_HELD = 64;

/** For this user alone while it is written into, whatever mode it is to have. */
const WRITABLE = 0o700;

/** The directories of a tree at its destination, each held through the one that it is in. */
export class TreeDirectories {
  readonly #task: WriteTreeTask;
  readonly #root: OpenDirectory;
  /** By row; the one that was asked for last stands last. */
  readonly #held = new Map<number, OpenDirectory>();
  #last = NO_ROW;

  constructor(task: WriteTreeTask) {
    this.#task = task;
    this.#root = OpenDirectory.receive(task.directory);
  }

  /**
   * The directory that a row is, or the root for `NO_ROW`. Valid until the next call, or the one after that if that is given it as `kept`.
   * @throws PullError as `storageError`; `store-broken` when it is not the one that `make` made or found
   */
  directory(row: number, kept?: OpenDirectory): OpenDirectory {
    const known = row === NO_ROW ? this.#root : this.#known(row);
    if (known !== undefined) return known;
    const { parent } = this.#task.tree;
    const missing = [row];
    let held: OpenDirectory | undefined;
    for (let above = parent[row]!; held === undefined; above = parent[above]!) {
      held = above === NO_ROW ? this.#root : this.#known(above);
      if (held === undefined) missing.push(above);
    }
    for (const below of missing.reverse()) {
      held = this.#open(held, below);
      this.#keep(below, held, kept);
    }
    return held;
  }

  /** The directory that a row is in. @throws as `directory` */
  around(row: number, kept?: OpenDirectory): OpenDirectory {
    return this.directory(this.#task.tree.parent[row]!, kept);
  }

  /** Makes the directory that a row is; with `replace` one that is there is taken as it is. @throws PullError as `storageError` */
  async make(row: number): Promise<void> {
    const { tree, replace, begun, inodes } = this.#task;
    const parent = this.around(row);
    const name = nameAt(tree, row);
    // Where nobody can put another in its place, it is opened when there is something to make in it.
    if (!replace && parent.isGuarded)
      // With `recursive` one that is there is no error.
      return place(parent, name, replace, () => {
        mkdirSync(parent.at(name), { mode: WRITABLE, recursive: begun });
      });
    const held =
      (replace && takeOver(parent, name)) ||
      (await place(parent, name, replace, () => parent.make(name, WRITABLE)));
    if (!parent.isGuarded) inodes[row] = held.ino;
    this.#keep(row, held);
  }

  close(): void {
    for (const held of this.#held.values()) held.close();
    this.#held.clear();
  }

  #known(row: number): OpenDirectory | undefined {
    const held = this.#held.get(row);
    if (held === undefined || row === this.#last) return held;
    this.#last = row;
    this.#held.delete(row);
    this.#held.set(row, held);
    return held;
  }

  #open(parent: OpenDirectory, row: number): OpenDirectory {
    const name = nameAt(this.#task.tree, row);
    const held = wrapFsError(`open ${parent.pathOf(name)}`, () => parent.open(name, !this.#task.replace));
    if (parent.isGuarded || held.ino === this.#task.inodes[row]) return held;
    held.close();
    throw changedByOthers(held.path);
  }

  #keep(row: number, held: OpenDirectory, kept?: OpenDirectory): void {
    this.#held.set(row, held);
    this.#last = row;
    if (this.#held.size <= MAX_HELD) return;
    for (const [oldest, unused] of this.#held) {
      if (unused === kept) continue;
      this.#held.delete(oldest);
      unused.close();
      return;
    }
  }
}

/** Holds a directory that is there and makes it writable; undefined when there is none, or something else. */
function takeOver(parent: OpenDirectory, name: Buffer): OpenDirectory | undefined {
  let held: OpenDirectory | undefined;
  try {
    held = parent.open(name);
    chmodSync(held.self, WRITABLE);
    return held;
  } catch (error) {
    held?.close();
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return undefined;
    throw storageError(error, `open ${parent.pathOf(name)}`);
  }
}

import { chmodSync, chownSync, linkSync, lstatSync, utimesSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isPlain, modeFor, ownerFor } from '../../src/export/abilities.js';
import { DIRECTORY, fileTime, HARD_LINK, isRoot, nameAt } from '../../src/export/file-tree.js';
import { wrapFsError } from '../../src/files/storage-error.js';
import type { FinishFilesTask } from '../../src/pool/messages.js';
import { CachedRows } from '../opaque/cached-rows.js';
import { place, ROWS_A_TURN } from './placing.js';

/** Makes hard links, then gives directories what they are to have, the deepest first: a parent may be closed then. */
export async function finishFiles(task: FinishFilesTask): Promise<undefined> {
  const { tree } = task;
  const held = new CachedRows(task);
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
  held: CachedRows,
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

function finishDirectory({ tree, abilities }: FinishFilesTask, held: CachedRows, row: number): void {
  const { self, path } = held.directory(row);
  wrapFsError(`finish ${path}`, () => {
    const owner = ownerFor(tree, row, abilities);
    if (owner !== undefined) chownSync(self, owner.uid, owner.gid);
    chmodSync(self, modeFor(tree, row, abilities));
    const time = fileTime(tree.mtimeSeconds[row]!, tree.mtimeNanos[row]!);
    utimesSync(self, time, time);
  });
}

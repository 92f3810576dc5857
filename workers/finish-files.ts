import { chmodSync, chownSync, linkSync, utimesSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isPlain, modeFor } from '../src/export/abilities.js';
import { DIRECTORY, HARD_LINK, pathIn } from '../src/export/file-tree.js';
import type { FinishFilesTask } from '../src/pool/messages.js';
import { onDisk } from '../src/store/storage-error.js';
import { fileTime, isThere, place, ROWS_A_TURN } from './placing.js';

/** Makes hard links, then gives directories what they are to have, the deepest first: a parent may be closed then. */
export async function finishFiles(task: FinishFilesTask): Promise<undefined> {
  const { tree } = task;
  for (let row = 0; row < tree.count; row++) {
    if (tree.type[row] === HARD_LINK) link(task, row);
    if (row % ROWS_A_TURN === 0) await nextTurn();
  }
  for (let row = tree.count - 1; row >= 0; row--) {
    if (tree.type[row] === DIRECTORY) finishDirectory(task, row);
    if (row % ROWS_A_TURN === 0) await nextTurn();
  }
}

function link({ tree, directory, replace, abilities }: FinishFilesTask, row: number): void {
  const target = tree.target[row]!;
  const targetPath = pathIn(directory, tree, target);
  // Another name of a device that could not be made cannot be made either.
  if (!isPlain(tree, target, abilities) && !isThere(targetPath)) return;
  const path = pathIn(directory, tree, row);
  place(path, replace, () => linkSync(targetPath, path));
}

function finishDirectory({ tree, directory, abilities }: FinishFilesTask, row: number): void {
  const path = pathIn(directory, tree, row);
  onDisk(`finish ${path}`, () => {
    if (abilities.owners) chownSync(path, tree.uid[row]!, tree.gid[row]!);
    chmodSync(path, modeFor(tree, row, abilities));
    const time = fileTime(tree.mtimeSeconds[row]!, tree.mtimeNanos[row]!);
    utimesSync(path, time, time);
  });
}

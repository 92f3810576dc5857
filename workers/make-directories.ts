import { chmodSync, mkdirSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { DIRECTORY, isRoot, pathIn } from '../src/export/file-tree.js';
import type { MakeDirectoriesTask } from '../src/pool/messages.js';
import { onDisk } from '../src/store/storage-error.js';
import { isDirectory, place, ROWS_A_TURN } from './placing.js';

/** For this user alone while it is written into, whatever mode it is to have. */
const WRITABLE = 0o700;

/** Makes every directory of the tree, parents first; the one they are made in is there. */
export async function makeDirectories({ tree, directory, replace }: MakeDirectoriesTask): Promise<undefined> {
  for (let row = 0; row < tree.count; row++) {
    if (tree.type[row] !== DIRECTORY || isRoot(tree, row)) continue;
    const path = pathIn(directory, tree, row);
    if (replace && isDirectory(path)) onDisk(`open ${path}`, () => chmodSync(path, WRITABLE));
    else place(path, replace, () => mkdirSync(path, WRITABLE));
    if (row % ROWS_A_TURN === 0) await nextTurn();
  }
}

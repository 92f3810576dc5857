import { setImmediate as nextTurn } from 'node:timers/promises';
import { DIRECTORY, isRoot } from '../../src/export/file-tree.js';
import type { MakeDirectoriesTask } from '../../src/pool/messages.js';
import { CachedRows } from '../opaque/cached-rows.js';
import { ROWS_A_TURN } from './placing.js';

/** Makes every directory of the tree, parents first; the one they are made in is there. */
export async function makeDirectories(task: MakeDirectoriesTask): Promise<undefined> {
  const { tree } = task;
  const held = new CachedRows(task);
  try {
    for (let row = 0; row < tree.count; row++) {
      if (row % ROWS_A_TURN === 0) await nextTurn();
      if (tree.type[row] === DIRECTORY && !isRoot(tree, row)) await held.make(row);
    }
  } finally {
    held.close();
  }
}

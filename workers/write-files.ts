import {
  constants,
  fchmodSync,
  fchownSync,
  futimesSync,
  lchownSync,
  lutimesSync,
  openSync,
  symlinkSync,
} from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isPlain, modeFor } from '../src/export/abilities.js';
import { FILE, linkAt, pathIn, SYMLINK } from '../src/export/file-tree.js';
import { count } from '../src/pool/counters.js';
import type { WriteFilesTask } from '../src/pool/messages.js';
import { closeWritten, onDisk, writeFully } from '../src/store/storage-error.js';
import { setup } from './context.js';
import { layerSources } from './layer-sources.js';
import { fileTime, place, ROWS_A_TURN } from './placing.js';

/** Only what is new: an open that finds a file or a symbolic link fails. */
const NEW = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;

/** Bytes of one file written before other tasks have their turn: a thread cannot be stopped in between. */
const BYTES_A_TURN = 8 * 2 ** 20;

const PERMISSIONS = 0o777;

/** Writes files, their contents from the layers, and symbolic links. */
export async function writeFiles(task: WriteFilesTask): Promise<undefined> {
  const { tree, abilities, rows } = task;
  for (const [done, row] of rows.entries()) {
    if (done % ROWS_A_TURN === 0) await nextTurn();
    if (!isPlain(tree, row, abilities)) continue;
    if (tree.type[row] === FILE) await writeFile(task, row);
    else if (tree.type[row] === SYMLINK) writeLink(task, row);
  }
}

async function writeFile(task: WriteFilesTask, row: number): Promise<void> {
  const { tree, directory, abilities, replace } = task;
  const path = pathIn(directory, tree, row);
  const mode = modeFor(tree, row, abilities);
  const fd = place(path, replace, () => openSync(path, NEW, mode & PERMISSIONS));
  try {
    await writeContent(task, row, fd, path);
    onDisk(`finish ${path}`, () => {
      if (abilities.owners) fchownSync(fd, tree.uid[row]!, tree.gid[row]!);
      // A change of the owner takes set-user-ID away; the umask may have taken other bits.
      if ((mode & ~PERMISSIONS) !== 0 || (mode & abilities.umask) !== 0) fchmodSync(fd, mode);
      const time = fileTime(tree.mtimeSeconds[row]!, tree.mtimeNanos[row]!);
      futimesSync(fd, time, time);
    });
  } finally {
    closeWritten(fd, path);
  }
}

async function writeContent({ tree }: WriteFilesTask, row: number, fd: number, path: Buffer): Promise<void> {
  const source = layerSources()[tree.layer[row]!]!;
  const sizeBytes = tree.sizeBytes[row]!;
  let turnAt = 0;
  for (let done = 0; done < sizeBytes; ) {
    const part = source.part(tree.contentStart[row]! + done, sizeBytes - done);
    writeFully(fd, path, part, done);
    done += part.length;
    count(setup.counters, 'written', part.length);
    if (done - turnAt < BYTES_A_TURN) continue;
    turnAt = done;
    await nextTurn();
  }
}

function writeLink({ tree, directory, abilities, replace }: WriteFilesTask, row: number): void {
  const path = pathIn(directory, tree, row);
  place(path, replace, () => symlinkSync(linkAt(tree, row), path));
  onDisk(`finish ${path}`, () => {
    if (abilities.owners) lchownSync(path, tree.uid[row]!, tree.gid[row]!);
    const time = fileTime(tree.mtimeSeconds[row]!, tree.mtimeNanos[row]!);
    lutimesSync(path, time, time);
  });
}

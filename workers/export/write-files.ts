import {
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  futimesSync,
  openSync,
  symlinkSync,
} from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isPlain, modeFor, ownerFor } from '../../src/export/abilities.js';
import {
  boundsAt,
  FILE,
  fileBytesAt,
  fileTime,
  linkAt,
  nameAt,
  SYMLINK,
} from '../../src/export/file-tree.js';
import type { LayerSource } from '../../src/export/layer-source.js';
import type { OpenDirectory } from '../../src/files/open-directory.js';
import { closeWritten, wrapFsError, writeFully } from '../../src/files/storage-error.js';
import type { OpenFile, TreeRows, WriteFilesTask } from '../../src/pool/messages.js';
import { count } from '../../src/pool/shared-memory.js';
import { setup } from '../context.js';
import { layerSources } from './layer-sources.js';
import { create, ROWS_A_TURN, TreeDirectories } from './tree-directories.js';

/** O_EXCL: fails if the path exists, even as a symbolic link. */
const NEW = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;

/** Bytes of one file written before the thread yields: it cannot be stopped before. */
const BYTES_A_TURN = 8 * 2 ** 20;

/** Cost of a write call in bytes: the runs of a sparse file can have one byte each. */
const RUN_BYTES = 2 ** 13;

const PERMISSIONS = 0o777;

/** The part of a task that `createFile` and `fillFile` need. */
type Files = Pick<WriteFilesTask, 'tree' | 'abilities'>;

/** Writes files with their contents, and symbolic links. */
export async function writeFiles(task: WriteFilesTask): Promise<undefined> {
  const { tree, abilities, rows } = task;
  const directories = new TreeDirectories(task);
  try {
    for (const [done, row] of rows.entries()) {
      if (done % ROWS_A_TURN === 0) await nextTurn();
      if (!isPlain(tree, row, abilities)) continue;
      if (tree.type[row] === FILE) await writeFile(task, directories.around(row), row);
      else if (tree.type[row] === SYMLINK) await writeLink(task, directories.around(row), row);
    }
  } finally {
    directories.close();
  }
}

async function writeFile(task: WriteFilesTask, directory: OpenDirectory, row: number): Promise<void> {
  const { tree, replace } = task;
  const name = nameAt(tree, row);
  const fd = await create(directory, name, replace, () => createFile(task, directory.at(name), row));
  await fillFile(task, layerSources(task.layers)[tree.layer[row]!]!, row, {
    fd,
    path: directory.pathOf(name),
  });
}

/** Creates the file of a row, which must not exist. @throws the system's error */
export function createFile({ tree, abilities }: Files, at: Buffer, row: number): number {
  return openSync(at, NEW, modeFor(tree, row, abilities) & PERMISSIONS);
}

/** Writes content and attributes of a new file, and closes it.
 * @throws PullError as `storageError` and `LayerSource.part` */
export async function fillFile(
  { tree, abilities }: Files,
  source: LayerSource,
  row: number,
  { fd, path }: OpenFile,
): Promise<void> {
  const mode = modeFor(tree, row, abilities);
  try {
    await writeContent(tree, source, row, { fd, path });
    wrapFsError(`finish ${path}`, () => {
      const owner = ownerFor(tree, row, abilities);
      if (owner !== undefined) fchownSync(fd, owner.uid, owner.gid);
      // A change of the owner clears set-user-ID; the umask may have cleared other bits.
      if ((mode & ~PERMISSIONS) !== 0 || (mode & abilities.umask) !== 0) fchmodSync(fd, mode);
      const time = fileTime(tree.mtimeSeconds[row]!, tree.mtimeNanos[row]!);
      futimesSync(fd, time, time);
    });
  } finally {
    closeWritten(fd, path);
  }
}

/** Writes the data of a file and leaves holes between and after its runs. */
async function writeContent(
  tree: TreeRows,
  source: LayerSource,
  row: number,
  { fd, path }: OpenFile,
): Promise<void> {
  const sizeBytes = tree.sizeBytes[row]!;
  const bounds = boundsAt(tree, row) ?? [0, sizeBytes];
  let from = tree.contentStart[row]!;
  let turnBytes = 0;
  for (let run = 0; run < bounds.length; run += 2) {
    const end = bounds[run + 1]!;
    for (let at = bounds[run]!; at < end; ) {
      const part = source.part(from, end - at);
      writeFully(fd, path, part, at);
      at += part.length;
      from += part.length;
      count(setup.counters, 'written', part.length);
      turnBytes += part.length + RUN_BYTES;
      if (turnBytes < BYTES_A_TURN) continue;
      turnBytes = 0;
      await nextTurn();
    }
  }
  const fileBytes = fileBytesAt(tree, row);
  if (bounds.at(-1) !== fileBytes) wrapFsError(`write ${path}`, () => ftruncateSync(fd, fileBytes));
}

async function writeLink(task: WriteFilesTask, directory: OpenDirectory, row: number): Promise<void> {
  const { tree, abilities, replace } = task;
  const name = nameAt(tree, row);
  await create(directory, name, replace, () => symlinkSync(linkAt(tree, row), directory.at(name)));
  wrapFsError(`finish ${directory.pathOf(name)}`, () => {
    const owner = ownerFor(tree, row, abilities);
    directory.setLinkAttributes(name, owner, fileTime(tree.mtimeSeconds[row]!, tree.mtimeNanos[row]!));
  });
}

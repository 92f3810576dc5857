import {
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  futimesSync,
  mkdirSync,
  openSync,
  symlinkSync,
} from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isPlain, modeFor, ownerFor } from '../../src/export/abilities.js';
import { BLOCK_BYTES, BlockTags, PartTags } from '../../src/export/block-tags.js';
import {
  boundsAt,
  FILE,
  fileBytesAt,
  fileTime,
  linkAt,
  nameAt,
  pathAt,
  SYMLINK,
} from '../../src/export/file-tree.js';
import { BlockCache, ExtentReader, LayerSource } from '../../src/export/layer-source.js';
import { OpenDirectory, type SharedDirectory } from '../../src/files/open-directory.js';
import {
  closeWritten,
  storageError,
  systemCode,
  wrapFsError,
  writeFully,
} from '../../src/files/storage-error.js';
import type {
  OpenFile,
  TreeRows,
  UnpackFilesResult,
  UnpackFilesTask,
  WriteFilesTask,
} from '../../src/pool/messages.js';
import { count } from '../../src/pool/shared-memory.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths, setup } from '../context.js';
import { layerSources } from './layer-sources.js';
import { create, MAX_OPEN_DIRECTORIES, ROWS_A_TURN, TreeDirectories, WRITABLE } from './tree-directories.js';

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
function createFile({ tree, abilities }: Files, at: Buffer, row: number): number {
  return openSync(at, NEW, modeFor(tree, row, abilities) & PERMISSIONS);
}

/** Writes content and attributes of a new file, and closes it.
 * @throws PullError as `storageError` and `LayerSource.part` */
async function fillFile(
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
      threadClock.addBytes('write', part.length);
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

const SLASH = 0x2f;

/**
 * Error codes of a path that another entry of the image occupies, and of a name that the file
 * system does not accept. The export, which knows the whole tree, writes such files or reports the
 * error.
 */
const BLOCKED_CODES: readonly string[] = ['EEXIST', 'ENOTDIR', 'EISDIR', 'ENAMETOOLONG', 'EINVAL', 'EILSEQ'];

const cache = new BlockCache();

/**
 * Writes files of a layer that may not be proven yet, and compares the blocks whose headers were
 * read.
 */
export async function unpackFiles(task: UnpackFilesTask): Promise<UnpackFilesResult> {
  const { tree, blocks, layer, firstBlock } = task;
  const packs = new PackReader(paths);
  const source = new LayerSource(cache, {
    diffId: layer.diffId,
    reader: new ExtentReader(packs, ExtentList.fromRows(task.extents)),
    tags: new BlockTags(layer.tags),
    partTags: new PartTags(layer.tags),
    firstBlock,
  });
  const directories = new Directories(task.directory);
  const written = new Uint8Array(tree.count);
  let compared = 0;
  /** Compares blocks along with the files, as most of them are read for those. */
  const compareUpTo = (block: number) => {
    for (; compared < blocks.length && blocks[compared]! <= block; compared++)
      source.wholeBlock(blocks[compared]!);
  };
  try {
    for (let row = 0; row < tree.count; row++) {
      if (row % ROWS_A_TURN === 0) await nextTurn();
      compareUpTo(Math.floor(tree.contentStart[row]! / BLOCK_BYTES));
      const file = createRow(task, directories, row);
      if (file === undefined) continue;
      await fillFile(task, source, row, file);
      written[row] = 1;
    }
    compareUpTo(Number.POSITIVE_INFINITY);
  } finally {
    directories.close();
    packs.close();
  }
  return { written };
}

/** Creates the file of a row; undefined when its path is occupied. */
function createRow(task: UnpackFilesTask, directories: Directories, row: number) {
  const path = pathAt(task.tree, row);
  const cut = path.lastIndexOf(SLASH);
  const name = path.subarray(cut + 1);
  try {
    const directory = directories.make(path.toString('latin1', 0, Math.max(0, cut)));
    return { fd: createFile(task, directory.at(name), row), path: directory.pathOf(name) };
  } catch (error) {
    if (BLOCKED_CODES.includes(systemCode(error) ?? '')) return undefined;
    throw storageError(error, `create ${path}`);
  }
}

/** Opens directories by their paths, in latin1, below one that no other user can change. */
class Directories {
  readonly #root: OpenDirectory;
  readonly #open = new Map<string, OpenDirectory>();

  constructor(root: SharedDirectory) {
    this.#root = OpenDirectory.receive(root);
  }

  /** Opens the directory at a path; creates it and its parents if missing.
   * @throws the system's error */
  make(path: string): OpenDirectory {
    if (path === '') return this.#root;
    const known = this.#open.get(path);
    if (known !== undefined) return known;
    const cut = path.lastIndexOf('/');
    const parent = this.make(path.slice(0, Math.max(0, cut)));
    const name = Buffer.from(path.slice(cut + 1), 'latin1');
    // With `recursive`, an existing directory is no error.
    mkdirSync(parent.at(name), { mode: WRITABLE, recursive: true });
    const directory = parent.open(name, true);
    this.#open.set(path, directory);
    if (this.#open.size > MAX_OPEN_DIRECTORIES) {
      const [oldest, unused] = this.#open.entries().next().value!;
      this.#open.delete(oldest);
      unused.close();
    }
    return directory;
  }

  close(): void {
    for (const opened of this.#open.values()) opened.close();
    this.#open.clear();
  }
}

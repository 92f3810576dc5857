import { mkdirSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { BLOCK_BYTES, BlockTags, PartTags } from '../../src/export/block-tags.js';
import { pathAt } from '../../src/export/file-tree.js';
import { BlockCache, ExtentReader, LayerSource } from '../../src/export/layer-source.js';
import { OpenDirectory, type SharedDirectory } from '../../src/files/open-directory.js';
import { storageError, systemCode } from '../../src/files/storage-error.js';
import type { UnpackFilesResult, UnpackFilesTask } from '../../src/pool/messages.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths } from '../context.js';
import { ROWS_A_TURN } from './tree-directories.js';
import { createFile, fillFile } from './write-files.js';

/** Limit of open directories, as in `TreeDirectories`. */
const MAX_OPEN = 64;

/** Access for this user alone until `finish-files`. */
const WRITABLE = 0o700;

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
    if (this.#open.size > MAX_OPEN) {
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

import { lstatSync } from 'node:fs';
import { storageError, systemCode, wrapFsErrorAsync } from '../files/storage-error.js';
import type { FileBatch } from '../pool/messages.js';
import type { OpenDirectory } from '../store/open-directory.js';
import { removeAt } from '../store/remove-tree.js';
import { BLOCK_BYTES } from './block-tags.js';
import { DIRECTORY, FILE, type FileTree, pathAt } from './file-tree.js';

/** How a system says that nothing has a name, or that nothing can have it. */
const NOT_THERE: readonly string[] = ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'EINVAL', 'EILSEQ'];

/** Files that are written before it is known whether the image has them in the end. */
export interface EarlyBatch extends FileBatch {
  /** The blocks of the layer that are read to write them, half-open. */
  readonly firstBlock: number;
  readonly endBlock: number;
  /** Where the last content ends. */
  readonly endBytes: number;
  /** By row: 1 for a file that was written. */
  written: Uint8Array;
}

/** All early batches. Decides which files stay when the file tree is known. */
export class EarlyFiles {
  readonly #batches: EarlyBatch[] = [];

  add(batch: FileBatch): EarlyBatch {
    const { tree, blocks } = batch;
    const first = tree.count === 0 ? Number.POSITIVE_INFINITY : tree.contentStart[0]!;
    const last = tree.count - 1;
    const endBytes = tree.count === 0 ? 0 : tree.contentStart[last]! + tree.sizeBytes[last]!;
    const early = {
      ...batch,
      firstBlock: Math.min(Math.floor(first / BLOCK_BYTES), ...blocks),
      endBlock: Math.max(Math.ceil(endBytes / BLOCK_BYTES), ...blocks.map((block) => block + 1)),
      endBytes,
      written: new Uint8Array(tree.count),
    };
    this.#batches.push(early);
    return early;
  }

  /**
   * Removes files and directories that the tree does not have at their paths. `rowOf` gives, for each layer of the image, its number in
   * the batches.
   * @returns by row of the tree, 1 for a file that is already written
   * @throws PullError as `storageError`
   */
  async keep(tree: FileTree, rowOf: readonly number[], root: OpenDirectory): Promise<Uint8Array> {
    const isKept = new Uint8Array(tree.count);
    const rows = rowsByContent(tree, rowOf);
    const stale: { readonly path: Buffer; readonly isWritten: boolean }[] = [];
    for (const { layer, tree: files, written } of this.#batches) {
      for (let file = 0; file < files.count; file++) {
        const path = pathAt(files, file);
        const isWritten = written[file] === 1;
        const row = rows.get(layer)?.get(files.contentStart[file]!);
        if (isWritten && row !== undefined && pathAt(tree, row).equals(path)) isKept[row] = 1;
        else stale.push({ path, isWritten });
      }
    }
    if (stale.length > 0) await removeStale(stale, directoriesOf(tree), root);
    return isKept;
  }
}

/** The rows of files by layer and by where their contents begin in it. */
function rowsByContent(tree: FileTree, rowOf: readonly number[]): Map<number, Map<number, number>> {
  const rows = new Map(rowOf.map((layer) => [layer, new Map<number, number>()]));
  for (let row = 0; row < tree.count; row++) {
    if (tree.type[row] === FILE && tree.sizeBytes[row]! > 0)
      rows.get(rowOf[tree.layer[row]!]!)!.set(tree.contentStart[row]!, row);
  }
  return rows;
}

/** The paths of all directories, latin1. */
function directoriesOf(tree: FileTree): Set<string> {
  const paths = new Set<string>();
  for (let row = 0; row < tree.count; row++)
    if (tree.type[row] === DIRECTORY) paths.add(pathAt(tree, row).toString('latin1'));
  return paths;
}

async function removeStale(
  stale: readonly { readonly path: Buffer; readonly isWritten: boolean }[],
  wanted: ReadonlySet<string>,
  root: OpenDirectory,
): Promise<void> {
  const gone = new Set<string>();
  for (const { path, isWritten } of stale) {
    const needless = topmost(path.toString('latin1'), wanted);
    if (needless === undefined) {
      if (isWritten) await remove(root, path);
    } else if (!gone.has(needless)) {
      gone.add(needless);
      // It has only stale files: the files of the tree are in directories of the tree. A stale file in its place has an entry of its own.
      const place = Buffer.from(needless, 'latin1');
      if (isDirectory(root, place)) await remove(root, place);
    }
  }
}

/** Whether a directory is there. A file can be in its place, or in that of one around it. */
function isDirectory(root: OpenDirectory, path: Buffer): boolean {
  try {
    return lstatSync(root.at(path)).isDirectory();
  } catch (error) {
    if (NOT_THERE.includes(systemCode(error) ?? '')) return false;
    throw storageError(error, `look at ${root.pathOf(path)}`);
  }
}

function remove(root: OpenDirectory, path: Buffer): Promise<void> {
  return wrapFsErrorAsync(`remove ${root.pathOf(path)}`, () => removeAt(root, path));
}

/** The topmost of the directories around a path that is not wanted; undefined when all are. */
function topmost(path: string, wanted: ReadonlySet<string>): string | undefined {
  for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1)) {
    const above = path.slice(0, slash);
    if (!wanted.has(above)) return above;
  }
  return undefined;
}

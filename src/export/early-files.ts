import { lstatSync } from 'node:fs';
import { OpenDirectory, removeAt } from '../files/open-directory.js';
import { storageError, systemCode, wrapFsErrorAsync } from '../files/storage-error.js';
import type { EarlyRows, KeepFilesTask, TreeRows } from '../pool/messages.js';
import { DIRECTORY, FILE, pathAt } from './file-tree.js';

/** Error codes of a path that is missing or cannot exist. */
const MISSING_CODES: readonly string[] = ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'EINVAL', 'EILSEQ'];

interface EarlyFile {
  readonly batch: EarlyRows;
  readonly row: number;
}

/** A path of an early file that the file tree lacks or has for something else. */
interface StalePath {
  readonly path: Buffer;
  readonly isWritten: boolean;
}

/**
 * Removes the early files and directories that the tree does not have.
 * @returns for each row of the tree, 1 if its file is already written
 * @throws PullError as `storageError`
 */
export async function keepFiles({ early, tree, rowOf, directory }: KeepFilesTask): Promise<Uint8Array> {
  const isKept = new Uint8Array(tree.count);
  const files = filesByContent(early);
  for (let row = 0; row < tree.count; row++) {
    if (tree.type[row] !== FILE) continue;
    const ofLayer = files.get(rowOf[tree.layer[row]!]!);
    const file = ofLayer?.get(tree.contentStart[row]!);
    if (file === undefined || file.batch.written[file.row] !== 1) continue;
    if (!pathAt(tree, row).equals(pathAt(file.batch, file.row))) continue;
    isKept[row] = 1;
    ofLayer!.delete(tree.contentStart[row]!);
  }
  const stale = [...files.values()].flatMap((ofLayer) => Array.from(ofLayer.values(), stalePath));
  if (stale.length > 0) await removeStale(stale, directoriesOf(tree), OpenDirectory.receive(directory));
  return isKept;
}

/** Indexes the files by layer and by the offset of their contents in it. */
function filesByContent(early: readonly EarlyRows[]): Map<number, Map<number, EarlyFile>> {
  const files = new Map<number, Map<number, EarlyFile>>();
  for (const batch of early) {
    const ofLayer = files.get(batch.layer) ?? new Map<number, EarlyFile>();
    files.set(batch.layer, ofLayer);
    for (let row = 0; row < batch.count; row++) ofLayer.set(batch.contentStart[row]!, { batch, row });
  }
  return files;
}

function stalePath({ batch, row }: EarlyFile): StalePath {
  return { path: pathAt(batch, row), isWritten: batch.written[row] === 1 };
}

function directoriesOf(tree: TreeRows): Set<string> {
  const paths = new Set<string>();
  for (let row = 0; row < tree.count; row++)
    if (tree.type[row] === DIRECTORY) paths.add(pathAt(tree, row).toString('latin1'));
  return paths;
}

async function removeStale(
  stale: readonly StalePath[],
  needed: ReadonlySet<string>,
  root: OpenDirectory,
): Promise<void> {
  const gone = new Set<string>();
  for (const { path, isWritten } of stale) {
    const needless = topmost(path.toString('latin1'), needed);
    if (needless === undefined) {
      if (isWritten) await remove(root, path);
    } else if (!gone.has(needless)) {
      gone.add(needless);
      // It contains stale files alone, as files of the tree are in directories of the tree. If it
      // is a stale file itself, `stale` has an item for it.
      const path = Buffer.from(needless, 'latin1');
      if (isDirectory(root, path)) await remove(root, path);
    }
  }
}

/** Returns whether a path is a directory; it or a parent can be a file. */
function isDirectory(root: OpenDirectory, path: Buffer): boolean {
  try {
    return lstatSync(root.at(path)).isDirectory();
  } catch (error) {
    if (MISSING_CODES.includes(systemCode(error) ?? '')) return false;
    throw storageError(error, `stat ${root.pathOf(path)}`);
  }
}

function remove(root: OpenDirectory, path: Buffer): Promise<void> {
  return wrapFsErrorAsync(`remove ${root.pathOf(path)}`, () => removeAt(root, path));
}

/** Returns the topmost parent directory that is not needed; undefined when all are. */
function topmost(path: string, needed: ReadonlySet<string>): string | undefined {
  for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1)) {
    const above = path.slice(0, slash);
    if (!needed.has(above)) return above;
  }
  return undefined;
}

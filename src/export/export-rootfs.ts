import { execFile } from 'node:child_process';
import { chmod, mkdir } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { promisify } from 'node:util';
import type { Abilities } from '../pool/messages.js';
import { moveFile } from '../store/atomic-file.js';
import { lookAtDirectory } from '../store/destination.js';
import { requireSpace } from '../store/disk-space.js';
import { makeDirectory } from '../store/make-directory.js';
import { onDiskAsync } from '../store/storage-error.js';
import { leftOut, needsTar } from './abilities.js';
import { type FilesRun, withFilesExport } from './export-run.js';
import { contentBytes, type FileTree, isRoot } from './file-tree.js';
import type { ExportOptions } from './options.js';
import { emptyDirectory, removeUnfinished, unfinishedName } from './unfinished.js';

/** What one `write-files` task has: little enough that all threads end together, much more than a message costs. */
const TASK_BYTES = 16 * 2 ** 20;
const TASK_ROWS = 500;

/** For its owner alone until it is whole. */
const UNFINISHED_MODE = 0o700;
/** What a root directory is like that no layer states. */
const ROOT_MODE = 0o755;

/**
 * Writes the file system that the layers make into a directory, which is absent, empty, or with `force` anything: then
 * what it has under a name of the image is replaced and all else stays. Nothing is written or followed outside it. One
 * that was absent appears under its name only when it is whole and all layers are proven; one that was empty is empty
 * again after a failure; in one that was full nothing is touched before all layers are proven.
 * @throws PullError `option-malformed` when the directory is not empty or none, `digest-mismatch` when a layer in the store is
 *   damaged, `store-broken` when one is gone, `metadata-malformed` or `unsupported` when they make no file system;
 *   as `storageError` for the destination
 */
export async function exportRootfs(
  options: ExportOptions & { readonly directory: string; readonly force?: boolean },
): Promise<void> {
  const directory = resolve(options.directory);
  const before = lookAtDirectory(directory, options.force === true);
  const target = before === 'absent' ? await unfinishedName(directory) : directory;
  try {
    await withFilesExport(options, async (run) => {
      const flattening = run.pool.run({ task: 'flatten' });
      // Behind it in the queue, and before the many small tasks, which fill what time is left.
      const proof = run.prove();
      const tree = await flattening;
      if (before === 'absent') await makeRoot(target);
      const totalBytes = contentBytes(tree);
      run.begin(`rootfs:${options.directory}`, totalBytes);
      // What is replaced makes room, nobody knows how much; and it is gone, so what comes for it is proven before.
      if (before === 'full') await proof;
      else await requireSpace(before === 'absent' ? dirname(target) : target, totalBytes);
      await writeTree(run, tree, target, before === 'full');
      await proof;
      if (before !== 'absent') return;
      if (!statesRoot(tree)) await chmod(target, ROOT_MODE);
      await moveFile(target, directory);
    });
  } catch (error) {
    if (before === 'absent') await removeUnfinished(target);
    if (before === 'empty') await emptyDirectory(target);
    throw error;
  }
}

async function makeRoot(path: string): Promise<void> {
  await onDiskAsync(`make the directory ${path}`, async () => {
    makeDirectory(dirname(path));
    await mkdir(path, UNFINISHED_MODE);
  });
}

async function writeTree(
  { pool, emit }: FilesRun,
  tree: FileTree,
  directory: string,
  replace: boolean,
): Promise<void> {
  const abilities = await findAbilities(tree);
  const common = { tree, directory, abilities, replace };
  await pool.run({ task: 'make-directories', ...common });
  await Promise.all(rowBatches(tree).map((rows) => pool.run({ task: 'write-files', ...common, rows })));
  if (someRow(tree, (row) => needsTar(tree, row, abilities))) {
    const { warnings } = await pool.run({ task: 'write-specials', ...common });
    for (const message of warnings) emit({ event: 'warning', message });
  }
  await pool.run({ task: 'finish-files', ...common });
  const message = leftOut(tree, abilities);
  if (message !== undefined) emit({ event: 'warning', message });
}

/** What this process can make; tar is looked for only if there is something for it. */
async function findAbilities(tree: FileTree): Promise<Abilities> {
  const uid = process.getuid?.() ?? -1;
  const owners = process.geteuid?.() === 0;
  const wished = { uid, umask: process.umask(), owners, tar: true };
  const needed = someRow(tree, (row) => needsTar(tree, row, wished));
  return { ...wished, tar: needed ? await hasGnuTar() : true };
}

async function hasGnuTar(): Promise<boolean> {
  try {
    const { stdout } = await promisify(execFile)('tar', ['--version']);
    return stdout.includes('GNU tar');
  } catch {
    return false; // not there, or none that knows the word
  }
}

function someRow(tree: FileTree, holds: (row: number) => boolean): boolean {
  for (let row = 0; row < tree.count; row++) if (holds(row)) return true;
  return false;
}

function statesRoot(tree: FileTree): boolean {
  return tree.count > 0 && isRoot(tree, 0);
}

/** The rows in batches, one a task, as they lie in the layers: packs that are not in memory are read in one go. */
function rowBatches(tree: FileTree): Uint32Array[] {
  const { layer, contentStart, sizeBytes } = tree;
  const rows = Uint32Array.from({ length: tree.count }, (_, row) => row);
  rows.sort((a, b) => layer[a]! - layer[b]! || contentStart[a]! - contentStart[b]!);
  const batches: Uint32Array[] = [];
  let start = 0;
  let bytes = 0;
  for (const [at, row] of rows.entries()) {
    bytes += sizeBytes[row]!;
    if (bytes < TASK_BYTES && at + 1 - start < TASK_ROWS && at + 1 < rows.length) continue;
    batches.push(rows.slice(start, at + 1));
    start = at + 1;
    bytes = 0;
  }
  return batches;
}

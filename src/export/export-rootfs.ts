import { execFile } from 'node:child_process';
import { dirname, resolve } from 'node:path';
import { promisify } from 'node:util';
import type { Abilities } from '../pool/messages.js';
import { lookAtDirectory } from '../store/destination.js';
import { requireSpace } from '../store/disk-space.js';
import { leftOut, needsTar } from './abilities.js';
import { type FilesRun, withFilesExport } from './export-run.js';
import { contentBytes, type FileTree } from './file-tree.js';
import { finishRoot } from './finish-root.js';
import type { ExportOptions } from './options.js';
import { type RootfsPlace, takePlace } from './rootfs-place.js';

/** What one `write-files` task has: little enough that all threads end together, much more than a message costs. */
const TASK_BYTES = 16 * 2 ** 20;
const TASK_ROWS = 500;

/**
 * Writes the file system that the layers make into a directory, which is absent, empty, or with `force` anything: then what it
 * has under a name of the image is replaced and all else stays. Nothing is written or followed outside it, whatever other users
 * do there meanwhile. One that was absent appears under its name only when it is whole and all layers are proven; one that was
 * empty is empty again after a failure; in one that was full nothing is touched before all layers are proven.
 * @throws PullError `option-malformed` when the directory is not empty or none, `digest-mismatch` when a layer in the store is
 *   damaged, `store-broken` when one is gone, `metadata-malformed` or `unsupported` when they make no file system;
 *   as `storageError` for the destination
 */
export async function exportRootfs(
  options: ExportOptions & { readonly directory: string; readonly force?: boolean },
): Promise<void> {
  const directory = resolve(options.directory);
  const force = options.force === true;
  const found = lookAtDirectory(directory, force);
  let place: RootfsPlace | undefined;
  let isDone = false;
  try {
    await withFilesExport(options, async (run) => {
      const flattening = run.pool.run({ task: 'flatten' });
      // Behind it in the queue, and before the many small tasks, which fill what time is left.
      const proof = run.prove();
      const tree = await flattening;
      place = await takePlace(directory, found === 'absent', force);
      const totalBytes = contentBytes(tree);
      run.begin(`rootfs:${options.directory}`, totalBytes);
      // What is replaced makes room, nobody knows how much; and it is gone, so what comes for it is proven before.
      if (!place.isEmpty) await proof;
      else await requireSpace(found === 'absent' ? dirname(directory) : directory, totalBytes);
      const abilities = await findAbilities(tree);
      await writeTree(run, tree, place, abilities);
      await proof;
      const closed = finishRoot(place, tree, abilities, force);
      await place.publish();
      isDone = true;
      for (const message of [closed, leftOut(tree, abilities)])
        if (message !== undefined) run.emit({ event: 'warning', message });
    });
  } finally {
    // No thread is left that uses what is held.
    if (!isDone) await place?.discard();
    place?.close();
  }
}

async function writeTree(
  { pool, emit }: FilesRun,
  tree: FileTree,
  { root, isEmpty }: RootfsPlace,
  abilities: Abilities,
): Promise<void> {
  const inodes = new BigUint64Array(new SharedArrayBuffer(tree.count * BigUint64Array.BYTES_PER_ELEMENT));
  const common = { tree, directory: root.shared, inodes, abilities, replace: !isEmpty };
  await pool.run({ task: 'make-directories', ...common });
  await Promise.all(rowBatches(tree).map((rows) => pool.run({ task: 'write-files', ...common, rows })));
  if (someRow(tree, (row) => needsTar(tree, row, abilities))) {
    const { warnings } = await pool.run({ task: 'write-specials', ...common });
    for (const message of warnings) emit({ event: 'warning', message });
  }
  await pool.run({ task: 'finish-files', ...common });
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

import { dirname, resolve } from 'node:path';
import { requireSpace } from '../files/disk-space.js';
import type { Abilities } from '../pool/messages.js';
import { detectAbilities, needsTar, omissionWarning, someRow } from './abilities.js';
import { inspectDirectory } from './destination-checks.js';
import { type ExportOptions, type FilesRun, withFilesExport } from './export-run.js';
import type { FollowedLayers } from './exported-layers.js';
import { contentBytes, FILE, type FileTree } from './file-tree.js';
import type { BegunRootfs, RootfsFollower } from './rootfs-follower.js';
import { finishRoot, openRootfsTarget, type RootfsTarget } from './rootfs-target.js';

/** What one `write-files` task has: little enough that all threads end together, much more than a message costs. */
const TASK_BYTES = 16 * 2 ** 20;
const TASK_ROWS = 500;

/**
 * Writes the file system that the layers make into a directory, which is absent, empty, or with `force` anything: then what it
 * has under a name of the image is replaced and all else stays. Nothing is written or followed outside it, whatever other users
 * do there meanwhile. One that was absent appears under its name only when it is whole and all layers are proven; one that was
 * empty is empty again after a failure; in one that was full nothing is touched before all layers are proven. With the `follower` that the
 * layers were pulled with, what it has written is not written again.
 * @throws PullError `option-malformed` when the directory is not empty or none, `digest-mismatch` when a layer in the store is
 *   damaged, `store-broken` when one is gone, `metadata-malformed` or `unsupported` when they make no file system;
 *   as `storageError` for the destination
 */
export async function exportRootfs(
  options: ExportOptions & {
    readonly directory: string;
    readonly force?: boolean;
    readonly follower?: Pick<RootfsFollower, 'finish'> | undefined;
    /** Layers that need not be proven again, such as those of a `TagFollower`. */
    readonly followed?: FollowedLayers | undefined;
    /** The file or directory that is wanted, as a path in the image; left out, all of it. What is in a directory goes into `directory`. */
    readonly path?: string | undefined;
    /** False leaves every file to the user of this process. */
    readonly sameOwner?: boolean;
  },
): Promise<void> {
  const directory = resolve(options.directory);
  const force = options.force === true;
  const begun = await options.follower?.finish(options);
  let place = begun?.place;
  let isDone = false;
  try {
    const found = begun === undefined ? inspectDirectory(directory, force) : 'empty';
    await withFilesExport({ ...options, ...(begun && { followed: begun }) }, async (run) => {
      const flattening =
        begun?.tree ?? run.pool.run({ task: 'flatten', intoFiles: true, path: options.path, ...run.given });
      // Behind it in the queue, and before the many small tasks, which fill what time is left.
      const proof = run.prove();
      const tree = await flattening;
      place ??= await openRootfsTarget(directory, found === 'absent', force);
      const rows = await rowsToWrite(tree, begun);
      run.begin(`rootfs:${options.directory}`, contentBytes(tree), (begun?.tree ?? null) !== null);
      // What is replaced makes room, nobody knows how much; and it is gone, so what comes for it is proven before.
      if (!place.isEmpty) await proof;
      else {
        const disk = found === 'absent' ? dirname(directory) : place.root.path;
        await requireSpace(disk, contentBytes(tree, rows));
      }
      const abilities = await detectAbilities(tree, options.sameOwner !== false);
      await writeTree(run, { tree, rows, begun: begun !== undefined }, place, abilities);
      await proof;
      const closed = finishRoot(place, tree, abilities, force);
      await place.publish();
      isDone = true;
      for (const message of [closed, omissionWarning(tree, abilities)])
        if (message !== undefined) run.emit({ event: 'warning', message });
    });
  } finally {
    await begun?.pool?.destroy();
    // No thread is left that uses what is held.
    if (!isDone) await place?.discard();
    place?.close();
  }
}

/** The rows that are not there yet. */
async function rowsToWrite(tree: FileTree, begun: BegunRootfs | undefined): Promise<Uint32Array> {
  const rows = Uint32Array.from({ length: tree.count }, (_, row) => row);
  if (begun === undefined) return rows;
  const isKept = await begun.keep(tree);
  return rows.filter((row) => isKept[row] === 0);
}

async function writeTree(
  { pool, emit, given }: FilesRun,
  { tree, rows, begun }: { readonly tree: FileTree; readonly rows: Uint32Array; readonly begun: boolean },
  { root, isEmpty }: RootfsTarget,
  abilities: Abilities,
): Promise<void> {
  const inodes = new BigUint64Array(new SharedArrayBuffer(tree.count * BigUint64Array.BYTES_PER_ELEMENT));
  const common = { tree, directory: root.shared, inodes, abilities, replace: !isEmpty, begun };
  await pool.run({ task: 'make-directories', ...common });
  const batches = rowBatches(tree, rows);
  const layersFor = (batch: Uint32Array) => (batch.some((row) => tree.type[row] === FILE) ? given : {});
  await Promise.all(
    batches.map((batch) => pool.run({ task: 'write-files', ...common, rows: batch, ...layersFor(batch) })),
  );
  if (someRow(tree, (row) => needsTar(tree, row, abilities))) {
    const { warnings } = await pool.run({ task: 'write-specials', ...common, ...given });
    for (const message of warnings) emit({ event: 'warning', message });
  }
  await pool.run({ task: 'finish-files', ...common });
}

/** The rows in batches, one a task, as they lie in the layers: packs that are not in memory are read in one go. */
function rowBatches({ layer, contentStart, sizeBytes }: FileTree, missing: Uint32Array): Uint32Array[] {
  const rows = missing.slice();
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

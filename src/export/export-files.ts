import { basename, dirname, resolve } from 'node:path';
import { isSpecialFile } from '../files/atomic-file.js';
import { requireSpace } from '../files/disk-space.js';
import { OpenDirectory } from '../files/open-directory.js';
import { followLinks } from '../files/resolve-path.js';
import { wrapFsError } from '../files/storage-error.js';
import type { Abilities, WriteTarTask } from '../pool/messages.js';
import { detectAbilities, needsTar, omissionWarning, someRow } from './abilities.js';
import { type ExportOptions, type FilesRun, type FollowedLayers, withFilesExport } from './export-run.js';
import { inspect, inspectDirectory, requireCreatable } from './export-schemes.js';
import { contentBytes, FILE, type FileTree } from './file-tree.js';
import { withNewFile } from './output-files.js';
import type { BegunRootfs, RootfsFollower } from './rootfs-follower.js';
import { finishRoot, openRootfsTarget, type RootfsTarget } from './rootfs-target.js';

/**
 * Limits of a `write-files` task: all threads end at about the same time, and messages cost little.
 */
const TASK_BYTES = 16 * 2 ** 20;
const TASK_ROWS = 500;

/**
 * Writes the file system of the layers into a directory that is absent or empty. With `force` it
 * may have entries: those with a name of the image are replaced, all others stay. Nothing is
 * written or followed outside of the directory, whatever other users do to it meanwhile. A new
 * directory gets its name once it is complete and all layers are proven, an empty one is empty
 * again after a failure, and a full one is not touched before all layers are proven. Files that the
 * `follower` of the pull has written are not written again.
 * @throws PullError `option-malformed` when the path is not a directory or not empty,
 *   `digest-mismatch` when a layer in the store is damaged, `store-broken` when one is missing,
 *   `metadata-malformed` or `unsupported` when they make no file system; as `storageError` for the
 *   destination
 */
export async function exportRootfs(
  options: ExportOptions & {
    readonly directory: string;
    readonly force?: boolean;
    readonly follower?: Pick<RootfsFollower, 'finish'> | undefined;
    /** Layers that are proven already, such as those of a `TagFollower`. */
    readonly followed?: FollowedLayers | undefined;
    /**
     * Path in the image of the file, or of the directory whose entries are exported; default: all
     * of it.
     */
    readonly path?: string | undefined;
    /** False makes the user of this process own every file. */
    readonly sameOwner?: boolean;
  },
): Promise<void> {
  const directory = resolve(options.directory);
  const force = options.force === true;
  const begun = await options.follower?.finish(options);
  let target = begun?.target;
  let isDone = false;
  try {
    const found = begun === undefined ? inspectDirectory(directory, force) : 'empty';
    await withFilesExport({ ...options, ...(begun && { followed: begun }) }, async (run) => {
      const flattening =
        begun?.tree ?? run.pool.run({ task: 'flatten', intoFiles: true, path: options.path, ...run.given });
      // Queued after `flatten` and before the many small tasks, which fill idle threads.
      void run.prove();
      const tree = await run.stages.clock.within('metadata', () => flattening);
      target ??= await openRootfsTarget(directory, found === 'absent', force);
      const rows = await rowsToWrite(tree, begun);
      run.begin(`rootfs:${options.directory}`, contentBytes(tree), (begun?.tree ?? null) !== null);
      // Replaced files cannot be restored, so the layers are proven first. They also make room, but
      // it is unknown how much.
      if (!target.isEmpty) await run.proven();
      else {
        const disk = found === 'absent' ? dirname(directory) : target.root.path;
        await requireSpace(disk, contentBytes(tree, rows));
      }
      const abilities = await detectAbilities(tree, options.sameOwner !== false);
      await writeTree(run, { tree, rows, begun: begun !== undefined }, target, abilities);
      await run.proven();
      const closed = finishRoot(target, tree, abilities, force);
      await target.publish();
      isDone = true;
      for (const message of [closed, omissionWarning(tree, abilities)])
        if (message !== undefined) run.emit({ event: 'warning', message });
    });
  } finally {
    await begun?.pool?.destroy();
    // By now no thread uses the target.
    if (!isDone) await target?.discard();
    target?.close();
  }
}

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

/**
 * Splits the rows into batches, one a task, in the order of the layers, so that packs are read
 * sequentially.
 */
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

interface TarOptions extends ExportOptions {
  /** Default: the standard output. A device or a pipe is written to like the standard output. */
  readonly file?: string;
  /** Path in the image of the file or directory to export; default: all of it. */
  readonly path?: string | undefined;
  /** Layers that are proven already, such as those of a `TagFollower`. */
  readonly followed?: FollowedLayers | undefined;
}

/**
 * Writes the file system of the layers as one tar, the same bytes for the same layers. A file gets
 * its name once all layers are proven; the standard output is written to before that.
 * @returns false when the reader of the standard output closed it before the end
 * @throws PullError `digest-mismatch` when a layer in the store is damaged, `store-broken` when one
 *   is missing, `metadata-malformed` or `unsupported` when they make no file system,
 *   `option-malformed` when the path is a directory, has no parent directory, or passes a link of
 *   another user
 */
export async function exportTar(options: TarOptions): Promise<boolean> {
  const file = options.file === undefined ? undefined : resolve(options.file);
  if (file === undefined) return writeTar(options, undefined);
  requireCreatable(file);
  if (isSpecialFile(file)) return writeSpecialFile(options, file);
  return withNewFile(file, (unfinished) => {
    const { fd, path } = unfinished;
    return writeTar(options, { fd, path }, () => unfinished.publish());
  });
}

/** Writes to a device or a pipe, but not to one that another user replaces it with. */
async function writeSpecialFile(options: TarOptions, file: string): Promise<boolean> {
  const target = inspect(file, () => followLinks(file));
  const directory = wrapFsError(`open ${dirname(target)}`, () => OpenDirectory.hold(dirname(target)));
  try {
    // Only one kind of link remains: our own in /proc to a pipe without a path.
    const follows = directory.shared.fd === undefined && directory.isPrivate;
    return await writeTar(options, { path: file, at: directory.at(basename(target)), follows });
  } finally {
    directory.close();
  }
}

async function writeTar(
  options: TarOptions,
  to: WriteTarTask['to'],
  publish = async () => {},
): Promise<boolean> {
  return withFilesExport(options, async ({ pool, prove, proven, begin, stages }) => {
    const flatten = { task: 'flatten', intoFiles: false, path: options.path } as const;
    const tree = await stages.clock.within('metadata', () => pool.run(flatten));
    begin(`tar:${options.file ?? '-'}`, contentBytes(tree));
    const writing = pool.run({ task: 'write-tar', tree, to });
    // One thread writes the tar, the others hash the layers.
    void prove();
    const { closed } = await writing;
    if (closed) return false;
    await proven();
    await publish();
    return true;
  });
}

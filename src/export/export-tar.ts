import { basename, dirname, resolve } from 'node:path';
import { isSpecialFile } from '../files/atomic-file.js';
import { followLinks } from '../files/follow-links.js';
import { OpenDirectory } from '../files/open-directory.js';
import { wrapFsError } from '../files/storage-error.js';
import type { WriteTarTask } from '../pool/messages.js';
import { inspect, requireCreatable } from './destination-checks.js';
import { type ExportOptions, withFilesExport } from './export-run.js';
import type { FollowedLayers } from './exported-layers.js';
import { contentBytes } from './file-tree.js';
import { UnfinishedFile } from './unfinished.js';

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
  const directory = wrapFsError(`open ${dirname(file)}`, () => OpenDirectory.hold(dirname(file)));
  try {
    const unfinished = await UnfinishedFile.create(directory, basename(file));
    try {
      const { fd, path } = unfinished;
      return await writeTar(options, { fd, path }, () => unfinished.publish());
    } finally {
      await unfinished.discard();
    }
  } finally {
    directory.close();
  }
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

/** Writes the tar, proves the layers, then calls `publish`. */
async function writeTar(
  options: TarOptions,
  to: WriteTarTask['to'],
  publish = async () => {},
): Promise<boolean> {
  return withFilesExport(options, async ({ pool, prove, begin }) => {
    const tree = await pool.run({ task: 'flatten', intoFiles: false, path: options.path });
    begin(`tar:${options.file ?? '-'}`, contentBytes(tree));
    const writing = pool.run({ task: 'write-tar', tree, to });
    // One thread writes the tar, the others hash the layers.
    const proof = prove();
    const { closed } = await writing;
    if (closed) return false;
    await proof;
    await publish();
    return true;
  });
}

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
  /** Without one the tar goes to the standard output; into a device or a pipe it goes as it comes, too. */
  readonly file?: string;
  /** The file or directory that is wanted, as a path in the image; left out, all of it. */
  readonly path?: string | undefined;
  /** Layers that need not be proven again, such as those of a `TagFollower`. */
  readonly followed?: FollowedLayers | undefined;
}

/**
 * Writes the file system that the layers make as one tar, the same bytes for the same layers. A file appears under its
 * name only once all layers are proven; what went to the standard output by then cannot be taken back.
 * @returns whether all was written: false when nobody read the standard output any more
 * @throws PullError `digest-mismatch` when a layer in the store is damaged, `store-broken` when one is gone,
 *   `metadata-malformed` or `unsupported` when they make no file system, `option-malformed` when the file
 *   is a directory or has none around it, or a link of another user leads elsewhere
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

/** Writes into a device or a pipe, and into nothing that another user puts in its place. */
async function writeSpecialFile(options: TarOptions, file: string): Promise<boolean> {
  const place = inspect(file, () => followLinks(file));
  const directory = wrapFsError(`open ${dirname(place)}`, () => OpenDirectory.hold(dirname(place)));
  try {
    // What is left of a link is one of ours in /proc, to a pipe that has no path.
    const follows = directory.shared.fd === undefined && directory.isPrivate;
    return await writeTar(options, { path: file, at: directory.at(basename(place)), follows });
  } finally {
    directory.close();
  }
}

/** Writes the tar and proves the layers, then does what `publish` does. */
async function writeTar(
  options: TarOptions,
  to: WriteTarTask['to'],
  publish = async () => {},
): Promise<boolean> {
  return withFilesExport(options, async ({ pool, prove, begin }) => {
    const tree = await pool.run({ task: 'flatten', intoFiles: false, path: options.path });
    begin(`tar:${options.file ?? '-'}`, contentBytes(tree));
    const writing = pool.run({ task: 'write-tar', tree, to });
    // One thread writes until the end: the hashes have the others.
    const proof = prove();
    const { closed } = await writing;
    if (closed) return false;
    await proof;
    await publish();
    return true;
  });
}

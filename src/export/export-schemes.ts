import { lstatSync, readdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { refuseSpecialFile } from '../files/atomic-file.js';
import { followLinks } from '../files/resolve-path.js';
import { ifExists, outsideStore, wrapFsError } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import type { LayerFollower } from '../pool/messages.js';
import type { StageRecorder } from '../pool/stages.js';
import type { ExportOptions } from './export-run.js';

/** The user's choices for an export, known before the pull. */
interface ExportRequest {
  /** Root directory of the store. */
  readonly store: string;
  /** The destination without its scheme; `-` is the standard output if the scheme can write to it. */
  readonly path: string;
  readonly force: boolean;
  /** False makes the user of this process own every file. */
  readonly sameOwner: boolean;
  /** Whether the layers of the pull are those of the export, so that a follower is of use. */
  readonly followsPull: boolean;
  /** Records the stages of what the follower does. */
  readonly stages: StageRecorder;
}

interface ImageToExport extends ExportOptions {
  /** Digest of the image's manifest. */
  readonly digest: string;
  readonly reference: string;
  /** Path in the image of the part to export; default: all of it. */
  readonly only: string | undefined;
}

/** An export whose pull has yet to run. */
interface PreparedExport {
  /** To pass to the pull. */
  readonly follower?: LayerFollower;
  /** Exports the pulled image. @returns the paths of the files, if there is one for each layer */
  write(image: ImageToExport): Promise<{ readonly files?: readonly string[] }>;
  /** Removes what the follower has written, unless `write` succeeded. @throws PullError as `storageError` */
  discard?(): Promise<void>;
}

interface ExportScheme {
  /** Whether the path can be `-`, the standard output. */
  readonly canStream: boolean;
  /** Whether the file system of the image is exported: `--path` can select a part of it. */
  readonly flattens: boolean;
  /** Whether files are created as they are in the image: `--no-same-owner` applies. */
  readonly unpacks: boolean;
  /**
   * Refuses an absolute path to which no export can succeed.
   * @throws PullError `option-malformed`; as `storageError` when the path cannot be read
   */
  check(path: string, force: boolean): void;
  /** Loads the code of the export and prepares it. */
  prepare(request: ExportRequest): Promise<PreparedExport>;
}

const tar: ExportScheme = {
  canStream: true,
  flattens: true,
  unpacks: false,
  check: requireCreatable,
  async prepare({ path, followsPull }) {
    const [{ exportTar }, { TagFollower }] = await Promise.all([
      import('./export-files.js'),
      import('./block-tags.js'),
    ]);
    const followed = followsPull ? new TagFollower() : undefined;
    return {
      ...(followed && { follower: followed }),
      async write({ only, ...image }) {
        await exportTar({ ...image, ...fileOf(path), path: only, followed });
        return {};
      },
    };
  },
};

const rootfs: ExportScheme = {
  canStream: false,
  flattens: true,
  unpacks: true,
  check: inspectDirectory,
  async prepare({ store, path: directory, force, sameOwner, followsPull, stages }) {
    const [{ exportRootfs }, { TagFollower }, { RootfsFollower }] = await Promise.all([
      import('./export-files.js'),
      import('./block-tags.js'),
      import('./rootfs-follower.js'),
    ]);
    // Files are written during the pull, unless they may replace others.
    const writesEarly = followsPull && !force;
    const follower = writesEarly ? new RootfsFollower({ store, directory, sameOwner, stages }) : undefined;
    const followed = followsPull && !writesEarly ? new TagFollower() : undefined;
    const used = follower ?? followed;
    return {
      ...(used && { follower: used }),
      async write({ only, ...image }) {
        await exportRootfs({ ...image, directory, path: only, force, sameOwner, follower, followed });
        return {};
      },
      discard: async () => follower?.discard(),
    };
  },
};

const layers: ExportScheme = {
  canStream: false,
  flattens: false,
  unpacks: false,
  check: requireDirectory,
  async prepare({ path: directory }) {
    const { exportLayers } = await import('./export-layers.js');
    return { write: async (image) => ({ files: await exportLayers({ ...image, directory }) }) };
  },
};

const dockerArchive: ExportScheme = {
  canStream: true,
  flattens: false,
  unpacks: false,
  check: requireFile,
  async prepare({ path }) {
    const { exportDockerArchive } = await import('./export-layers.js');
    return {
      async write(image) {
        await exportDockerArchive({ ...image, ...fileOf(path) });
        return {};
      },
    };
  },
};

/** All schemes: the command line and the API read them from here. */
export const EXPORT_SCHEMES = { tar, rootfs, layers, 'docker-archive': dockerArchive } as const;

export type ExportSchemeName = keyof typeof EXPORT_SCHEMES;

/**
 * Refuses, before a pull, a destination to which no export can succeed.
 * @throws PullError `option-malformed`, as the exports do; as `storageError` when the path cannot be
 *   read
 */
export function checkDestination(scheme: ExportSchemeName, path: string, force: boolean): void {
  EXPORT_SCHEMES[scheme].check(resolve(path), force);
}

function fileOf(path: string): { readonly file?: string } {
  return path === '-' ? {} : { file: path };
}

/**
 * Returns the state of a path that is to become a directory.
 * @throws PullError `option-malformed` for a directory with entries, unless `force` allows it, and
 *   for anything that is not a directory
 */
export function inspectDirectory(path: string, force: boolean): 'absent' | 'empty' | 'full' {
  if (!requireDirectory(path)) return 'absent';
  if (inspect(path, () => readdirSync(path)).length === 0) return 'empty';
  if (force) return 'full';
  throw notEmpty(path);
}

/** Returns the error for a directory with entries. */
export function notEmpty(path: string): PullError {
  return new PullError('option-malformed', `${path} is not empty`, {
    hint: 'Name a directory that is empty or does not exist, or overwrite files of the same names with --force.',
  });
}

/**
 * Returns whether a path is a directory or a link to one; false when it does not exist.
 * @throws PullError `option-malformed` for anything else, a dangling link included; as
 *   `followLinks` for a link of another user
 */
export function requireDirectory(path: string): boolean {
  inspect(path, () => followLinks(path));
  if (isDirectory(path)) return true;
  if (inspectIfExists(path, () => lstatSync(path)) === undefined) return false;
  throw new PullError('option-malformed', `${path} is not a directory`, {
    hint: 'Check that this is the destination you mean, and name a directory, or a path that does not exist.',
  });
}

/**
 * @throws PullError `option-malformed` for a path that no file can replace: a directory, a device,
 *   a pipe
 */
export function requireFile(path: string): void {
  requireCreatable(path);
  refuseSpecialFile(path);
}

/**
 * Requires that a path can become a file: it is no directory and its parent directory exists.
 * @throws PullError `option-malformed`; as `followLinks` for a link of another user on the way
 */
export function requireCreatable(path: string): void {
  inspect(path, () => followLinks(dirname(path)));
  if (isDirectory(path)) {
    throw new PullError('option-malformed', `${path} is a directory, not a file`, {
      hint: 'Check that this is the destination you mean, and name a file.',
    });
  }
  const parent = dirname(path);
  if (isDirectory(parent)) return;
  throw new PullError('option-malformed', `${path} cannot be created: ${parent} is not a directory`, {
    hint: 'Check that this is the destination you mean, and create that directory.',
  });
}

function isDirectory(path: string): boolean {
  return inspectIfExists(path, () => statSync(path))?.isDirectory() === true;
}

/** Same as `inspect`; undefined when the path does not exist. */
function inspectIfExists<T>(path: string, action: () => T): T | undefined {
  return inspect(path, () => ifExists(`stat ${path}`, action));
}

/** Returns what `action` reads about a path outside the store.
 * @throws PullError as `storageError` */
export function inspect<T>(path: string, action: () => T): T {
  try {
    return wrapFsError(`stat ${path}`, action);
  } catch (error) {
    throw outsideStore(error);
  }
}

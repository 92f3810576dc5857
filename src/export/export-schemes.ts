import { resolve } from 'node:path';
import type { LayerFollower } from '../pool/messages.js';
import { inspectDirectory, requireCreatable, requireDirectory, requireFile } from './destination-checks.js';
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
}

/** A pulled image to export. */
interface ImageToExport extends ExportOptions {
  /** Digest of the image's manifest. */
  readonly digest: string;
  readonly reference: string;
  /** Path in the image of the part to export; default: all of it. */
  readonly only: string | undefined;
}

/** An export whose pull has yet to run. */
export interface PreparedExport {
  /** To pass to the pull. */
  readonly follower?: LayerFollower;
  /** Exports the pulled image. @returns the paths of the files, if there is one for each layer */
  write(image: ImageToExport): Promise<{ readonly files?: readonly string[] }>;
  /** Removes what the follower has written, unless `write` succeeded. @throws PullError as `storageError` */
  discard?(): Promise<void>;
}

/** A kind of destination. */
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
      import('./export-tar.js'),
      import('./exported-layers.js'),
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
  async prepare({ store, path: directory, force, sameOwner, followsPull }) {
    const [{ exportRootfs }, { TagFollower }, { RootfsFollower }] = await Promise.all([
      import('./export-rootfs.js'),
      import('./exported-layers.js'),
      import('./rootfs-follower.js'),
    ]);
    // Files are written during the pull, unless they may replace others.
    const writesEarly = followsPull && !force;
    const follower = writesEarly ? new RootfsFollower({ store, directory, sameOwner }) : undefined;
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
    const { exportDockerArchive } = await import('./export-docker-archive.js');
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

import { resolve } from 'node:path';
import type { ExportEvent } from '../export/export-run.js';
import { checkDestination, EXPORT_SCHEMES } from '../export/export-schemes.js';
import { PullError, quote } from '../format/error.js';
import type { Stages } from '../pool/stages.js';
import { pullImage, pullPath } from '../pull/pull.js';
import type { EventOrigin, PullEvent } from '../pull/pull-events.js';
import type { PullOptions, RunOptions } from '../pull/pull-options.js';
import { pullAndExport } from './pull-and-export.js';

/** Where an export writes to. */
export interface ExportTarget {
  /**
   * `rootfs`: the files, into a directory that is absent or empty; `tar`: the file system as one
   * tar; `layers`: each layer's tar as `HEX.tar` in a directory; `docker-archive`: a file for
   * `docker load`.
   */
  readonly kind: 'rootfs' | 'tar' | 'layers' | 'docker-archive';
  readonly path: string;
}

/** What to export and where to. */
export interface ExportRequest extends Pick<PullOptions, 'platform' | 'policy' | 'signal'> {
  /** A reference as `pull` takes it; pin it with `name@sha256:…`. */
  readonly image: string;
  readonly to: ExportTarget;
  /** Only this file or directory of the image; for `rootfs` and `tar`. */
  readonly path?: string;
  /** Write a `rootfs` into a directory that is not empty; default false. */
  readonly force?: boolean;
  /** False gives all files of a `rootfs` to the user of this process. */
  readonly sameOwner?: boolean;
  /** Called with the events of the pull and of the export. */
  readonly onEvent?: (event: (PullEvent & EventOrigin) | ExportEvent) => void;
}

/** The result of an export, which is at its destination, verified. */
export interface ExportResult {
  readonly image: string;
  readonly digest: string;
  readonly to: ExportTarget;
  /** Of `layers`: the path of each layer's file. */
  readonly files?: readonly string[];
  readonly stages: Stages;
}

/**
 * Pulls an image as `options` say and exports it.
 * @throws PullError as `pullImage` and the exports
 */
export async function runExport(
  request: Omit<ExportRequest, 'platform' | 'policy' | 'signal'>,
  options: RunOptions,
): Promise<ExportResult> {
  const { image, to, path: only, force = false, sameOwner = true, onEvent } = request;
  if (!Object.hasOwn(EXPORT_SCHEMES, to.kind)) {
    const kinds = Object.keys(EXPORT_SCHEMES).join(', ');
    throw new PullError('option-malformed', `to.kind must be one of ${kinds}, not ${quote(to.kind)}`);
  }
  const scheme = EXPORT_SCHEMES[to.kind];
  if (only !== undefined && !scheme.flattens) {
    throw new PullError('option-malformed', `path is about files, and ${to.kind} has layers`);
  }
  checkDestination(to.kind, to.path, force);
  const { store, signal } = options;
  const { pulled, written, stages } = await pullAndExport(
    { scheme: to.kind, path: resolve(to.path), force, sameOwner, only, reference: image, store, signal },
    (state) => {
      const run = { ...options, ...state, ...(onEvent && { onEvent }) };
      if (only === undefined) return pullImage(image, run);
      return pullPath(image, { path: only, asRoot: scheme.unpacks }, run);
    },
    (_, write) => write(onEvent),
  );
  return { image: pulled.image, digest: pulled.digest, to, ...written, stages };
}

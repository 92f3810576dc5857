import type { ExportEvent } from '../export/export-run.js';
import { EXPORT_SCHEMES, type ExportSchemeName } from '../export/export-schemes.js';
import { StageRecorder, type Stages } from '../pool/stages.js';
import type { RunOptions } from '../pull/pull-options.js';
import type { PathResult, PullResult } from '../pull/pull-result.js';

/** What to export and where to. */
interface Exporting {
  readonly scheme: ExportSchemeName;
  /** Where the export goes, as its scheme takes it. */
  readonly path: string;
  readonly force: boolean;
  readonly sameOwner: boolean;
  /** Only this file or directory of the image. */
  readonly only: string | undefined;
  /** The name of the image as it was given. */
  readonly reference: string;
  readonly store: string;
  readonly signal: AbortSignal | undefined;
}

interface Written {
  /** The path of each layer's file, if there is one. */
  readonly files?: readonly string[];
}

/** Writes what was pulled. */
type Write = (onEvent: ((event: ExportEvent) => void) | undefined) => Promise<Written>;

/**
 * Pulls an image by `pull` and exports it by `write`, whose argument does it. What the pull has
 * verified is not hashed again, and the files of a `rootfs` are written while layers are received,
 * unless `force` lets them replace others.
 * @throws PullError as `pull` and the exports
 */
export async function pullAndExport<P extends PullResult | PathResult>(
  { scheme, path, force, sameOwner, only, reference, store, signal }: Exporting,
  pull: (state: Pick<RunOptions, 'follower' | 'stages'>) => Promise<P>,
  write: (pulled: P, run: Write) => Promise<Written>,
): Promise<{ readonly pulled: P; readonly written: Written; readonly stages: Stages }> {
  const stages = new StageRecorder();
  // A path is exported from a layer made for it or from the layers of the image.
  const followsPull = only === undefined;
  const target = { store, path, force, sameOwner, followsPull, stages };
  const prepared = await EXPORT_SCHEMES[scheme].prepare(target);
  try {
    const { follower } = prepared;
    const pulled = await pull({ stages, ...(follower && { follower }) });
    const isPicked = 'isPicked' in pulled && pulled.isPicked;
    const image = {
      store,
      diffIds: isPicked ? pulled.diffIds : pulled.layers.map(({ diffId }) => diffId),
      digest: pulled.digest,
      reference,
      only: isPicked ? undefined : only,
      stages,
      ...(signal && { signal }),
    };
    const written = await write(pulled, (onEvent) =>
      prepared.write({ ...image, ...(onEvent && { onEvent }) }),
    );
    return { pulled, written, stages: stages.result() };
  } finally {
    await prepared.discard?.();
  }
}

import { checkDestination, EXPORT_SCHEMES, type PreparedExport } from '../../api/export-schemes.js';
import type { PathResult, PullResult, RunOptions } from '../../api/pull.js';
import { StageRecorder, type Stages } from '../../api/stages.js';
import { checkStdout, type Destination, isStdout, parseDestination } from '../destination.js';
import { aboutImage, UsageError } from '../failure.js';
import { jsonLine } from '../format-text.js';
import type { OptionValues } from '../options.js';
import { createRenderer } from '../progress/renderer.js';
import { pullOptionsOf, readPassword } from '../pull-options.js';
import { untilSignal } from '../signals.js';
import { pullPathWithProgress, pullWithProgress } from './pull.js';

/**
 * `zpull export IMAGE DEST`: prints the destination. Without `--policy`, an image in the store is
 * not looked up again.
 */
export async function runExport(words: readonly string[], given: OptionValues): Promise<number> {
  const [image = '', text = ''] = words;
  const destination = parseDestination(text);
  checkExport(destination, given);
  const options = await readPassword(given);
  const { outcome } = await untilSignal(
    (signal) =>
      pullAndExport({ reference: image, destination, options, signal }, (state) => {
        const given = { policy: 'missing', ...options } as const;
        if (options.path === undefined) return pullWithProgress(image, given, signal, state);
        const selection = { path: options.path, asRoot: EXPORT_SCHEMES[destination.scheme].unpacks };
        return pullPathWithProgress(image, selection, given, signal, state);
      }),
    'in the store',
  );
  if (isStdout(destination)) return 0;
  process.stdout.write(options.json === true ? jsonLine(outcome) : `${outcome.destination}\n`);
  return 0;
}

/** The result of an export, as `--json` prints it. */
interface ExportOutcome {
  readonly image: string;
  readonly digest: string;
  readonly destination: string;
  /** For a destination with a file for each layer. */
  readonly files?: readonly string[];
  /** Those of the pull and the export together. */
  readonly stages: Stages;
}

/**
 * Refuses, before anything is pulled, a destination to which no export can succeed.
 * @throws UsageError as `checkStdout`, and for options of another destination; PullError as the
 *   exports do
 */
export function checkExport(destination: Destination, options: OptionValues): void {
  const { scheme, path } = destination;
  const { flattens, unpacks } = EXPORT_SCHEMES[scheme];
  if (options['no-same-owner'] === true && !unpacks)
    throw new UsageError('--no-same-owner is about files', 'leave it out, or name a destination rootfs:DIR');
  if (options.path !== undefined && !flattens) {
    throw new UsageError(
      `--path is about files, and ${scheme}: has layers`,
      'name a destination rootfs:DIR, tar:FILE or tar:-',
    );
  }
  if (isStdout(destination)) checkStdout(`${scheme}:-`, options.json, process.stdout.isTTY);
  else checkDestination(scheme, path, options.force === true);
}

/** An image to be pulled and exported. */
interface PullAndExport {
  readonly reference: string;
  readonly destination: Destination;
  readonly options: OptionValues;
  readonly signal: AbortSignal;
}

/**
 * Pulls an image with `pull` and exports it. What the pull has verified is not hashed again, and
 * the files of a `rootfs:` are written while layers are received, unless `--force` lets them
 * replace others.
 * @throws PullError as pull and exports do
 */
export async function pullAndExport(
  { reference, destination, options, signal }: PullAndExport,
  pull: (state: Pick<RunOptions, 'follower' | 'stages'>) => Promise<PullResult | PathResult>,
): Promise<{ readonly pulled: PullResult; readonly outcome: ExportOutcome }> {
  const { store } = pullOptionsOf(options, process.env);
  const stages = new StageRecorder();
  const prepared = await EXPORT_SCHEMES[destination.scheme].prepare({
    store,
    path: destination.path,
    force: options.force === true,
    sameOwner: options['no-same-owner'] !== true,
    // A path is exported from a layer made for it or from the layers of the image.
    followsPull: options.path === undefined,
    stages,
  });
  try {
    const { follower } = prepared;
    const pulled = await pull({ stages, ...(follower && { follower }) });
    const given = { reference, destination, options, signal, stages };
    const outcome = await aboutImage(pulled.image, () => exportImage(given, pulled, prepared));
    return { pulled, outcome };
  } finally {
    await prepared.discard?.();
  }
}

/**
 * Exports an image that was pulled as `reference` and shows progress on stderr.
 * @throws PullError as the exports do
 */
async function exportImage(
  { reference, destination, options, signal, stages }: PullAndExport & { readonly stages: StageRecorder },
  pulled: PullResult | PathResult,
  prepared: PreparedExport,
): Promise<ExportOutcome> {
  const { image, digest, store, layers } = pulled;
  const { scheme, path } = destination;
  const renderer = await createRenderer(options);
  const isPicked = 'isPicked' in pulled && pulled.isPicked;
  const only = isPicked ? undefined : options.path;
  const diffIds = isPicked ? pulled.diffIds : layers.map(({ diffId }) => diffId);
  try {
    const { onEvent } = renderer;
    const given = { store, diffIds, signal, onEvent, stages };
    const files = await prepared.write({ ...given, digest, reference, only });
    return { image, digest, destination: `${scheme}:${path}`, ...files, stages: stages.result() };
  } finally {
    renderer.end();
  }
}

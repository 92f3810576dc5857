import { checkDestination, EXPORT_SCHEMES, pullAndExport } from '../../api/export-schemes.js';
import type { PathResult, PullResult, RunOptions } from '../../api/pull.js';
import type { Stages } from '../../api/stages.js';
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
      pullAndExportTo({ reference: image, destination, options, signal }, (state) => {
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
 * Pulls an image with `pull`, exports it and shows progress on stderr.
 * @throws PullError as `pullAndExport`
 */
export async function pullAndExportTo(
  { reference, destination, options, signal }: PullAndExport,
  pull: (state: Pick<RunOptions, 'follower' | 'stages'>) => Promise<PullResult | PathResult>,
): Promise<{ readonly pulled: PullResult; readonly outcome: ExportOutcome }> {
  const { scheme, path } = destination;
  const { store } = pullOptionsOf(options, process.env);
  const [force, sameOwner] = [options.force === true, options['no-same-owner'] !== true];
  const { pulled, written, stages } = await pullAndExport(
    { scheme, path, force, sameOwner, only: options.path, reference, store, signal },
    pull,
    ({ image }, write) =>
      aboutImage(image, async () => {
        const renderer = await createRenderer(options);
        try {
          return await write(renderer.onEvent);
        } finally {
          renderer.end();
        }
      }),
  );
  const { image, digest } = pulled;
  return { pulled, outcome: { image, digest, destination: `${scheme}:${path}`, ...written, stages } };
}

import { formatBytes, formatCount, formatDuration } from '../../api/figures.js';
import {
  type PathResult,
  type PathSelection,
  type PullEvent,
  type PullResult,
  pullImage,
  pullPath,
  type RunOptions,
  Shared,
} from '../../api/pull.js';
import type { CopyDestination, Destination } from '../destination.js';
import { type CommandFailure, failureOf, reportFailure, UsageError } from '../failure.js';
import { jsonLine, printable } from '../format-text.js';
import type { OptionValues } from '../options.js';
import { createRenderer, withRenderer } from '../progress/renderer.js';
import { pullOptionsOf, readPassword } from '../pull-options.js';
import { untilSignal } from '../signals.js';

type Output = Destination | CopyDestination;

/**
 * `zpull pull IMAGE…`: pulls each image even if others fail; the exit code is that of the first
 * failure.
 */
export async function runPull(images: readonly string[], given: OptionValues): Promise<number> {
  const destination = await outputOf(images, given);
  const options = await readPassword(given);
  const shared: SharedState = { shared: new Shared(options['limit-rate']), warned: new Set() };
  const startedMs = performance.now();
  const pulled: PullResult[] = [];
  const failed: CommandFailure[] = [];
  await untilSignal(async (signal) => {
    for (const image of images) {
      try {
        pulled.push(await pullOne(image, destination, options, signal, shared));
      } catch (error) {
        // main reports it.
        if (signal.aborted || images.length === 1) throw error;
        const failure = { image, ...(await failureOf(error)) };
        const { json = false, debug = false } = options;
        reportFailure(failure, { json, debug, namesImage: true });
        failed.push(failure);
      }
    }
  }, 'in the store');
  const isForPeople = options.quiet !== true && !['json', 'none'].includes(options.progress ?? 'auto');
  if (images.length > 1 && isForPeople) {
    process.stderr.write(summaryOfImages(pulled, failed, performance.now() - startedMs));
  }
  return failed[0]?.exitCode ?? 0;
}

/** Lines on several images: how many were pulled, and which failed and why. */
export function summaryOfImages(
  pulled: readonly Pick<PullResult, 'fetchedBytes' | 'reusedBytes'>[],
  failed: readonly Pick<CommandFailure, 'code' | 'image'>[],
  durationMs: number,
): string {
  const sum = (field: 'fetchedBytes' | 'reusedBytes') =>
    pulled.reduce((bytes, result) => bytes + result[field], 0);
  const parts = [
    `${formatCount(pulled.length, 'image')} pulled`,
    ...(failed.length > 0 ? [`${failed.length} failed`] : []),
    `fetched ${formatBytes(sum('fetchedBytes'))}`,
    ...(sum('reusedBytes') > 0 ? [`reused ${formatBytes(sum('reusedBytes'))}`] : []),
  ];
  const failures = failed.map(({ code, image = '' }) => printable(`failed: ${image} (${code})`));
  return `${[`${parts.join(', ')} in ${formatDuration(durationMs)}`, ...failures].join('\n')}\n`;
}

/**
 * The destination of `--output`, checked.
 * @throws UsageError for a malformed one, for one with several images, and for options without it;
 *   PullError as exports and copies do
 */
async function outputOf(images: readonly string[], options: OptionValues): Promise<Output | undefined> {
  const { output, force, 'no-same-owner': noSameOwner, policy } = options;
  if (output === undefined) {
    if (force === true) throw new UsageError('--force is about --output', 'add --output rootfs:DIR');
    if (noSameOwner === true)
      throw new UsageError('--no-same-owner is about --output', 'add --output rootfs:DIR');
    return undefined;
  }
  if (images.length > 1) {
    throw new UsageError(
      '--output takes one image',
      'pull them one by one, each to a destination of its own',
    );
  }
  const { checkStdout, isStdout, parseOutput } = await import('../destination.js');
  const destination = parseOutput(output);
  if ('scheme' in destination) {
    const { checkExport } = await import('./export.js');
    checkExport(destination, options);
    return destination;
  }
  if (policy === 'never') {
    throw new UsageError(
      `${output} gets the blobs as the registry has them, which "--policy never" forbids to ask`,
      'leave out --policy, or name a destination of zpull export',
    );
  }
  if (isStdout(destination)) checkStdout(output, options.json, process.stdout.isTTY);
  else {
    const { checkCopyDestination } = await import('../../api/copy.js');
    checkCopyDestination(destination);
  }
  return destination;
}

async function pullOne(
  image: string,
  destination: Output | undefined,
  options: OptionValues,
  signal: AbortSignal,
  shared: SharedState,
): Promise<PullResult> {
  if (destination === undefined) {
    return print(await pullWithProgress(image, options, signal, shared), options);
  }
  const { isStdout } = await import('../destination.js');
  if ('kind' in destination) {
    const [{ copyWithProgress }, { StageRecorder }] = await Promise.all([
      import('./copy.js'),
      import('../../api/stages.js'),
    ]);
    const together = { ...shared, stages: new StageRecorder() };
    const result = await pullWithProgress(image, options, signal, together);
    const { stages } = await copyWithProgress(pinned(result), destination, options, signal, together);
    if (!isStdout(destination)) print(result, options, { destination: options.output, stages });
    return result;
  }
  const { pullAndExportTo } = await import('./export.js');
  const { pulled, outcome } = await pullAndExportTo(
    { reference: image, destination, options, signal },
    (state) => pullWithProgress(image, options, signal, { ...shared, ...state }),
  );
  const { destination: text, files, stages } = outcome;
  if (!isStdout(destination)) print(pulled, options, { destination: text, ...(files && { files }), stages });
  return pulled;
}

/** The image by digest: its tag may have moved since the pull. */
function pinned({ image, digest }: PullResult): string {
  return `${image.replace(/@sha256:[0-9a-f]{64}$/, '')}@${digest}`;
}

/** Prints the result, and returns it. */
function print(result: PullResult, { json = false }: OptionValues, more: object = {}): PullResult {
  process.stdout.write(json ? jsonLine({ ...result, ...more }) : `${result.digest}\n`);
  return result;
}

/** What the pulls of one command share. */
export interface SharedState extends Pick<RunOptions, 'shared' | 'follower' | 'stages'> {
  /** Warnings shown so far: one about the store is shown once for all images. */
  readonly warned?: Set<string>;
}

/**
 * Pulls an image with the options of the command line and shows progress on stderr.
 * @throws PullError as `pullImage` does
 */
export async function pullWithProgress(
  image: string,
  options: OptionValues,
  signal: AbortSignal,
  shared: SharedState = {},
): Promise<PullResult> {
  return withProgress(options, signal, shared, (given) => pullImage(image, given));
}

/**
 * Pulls what one file or directory of an image needs, like `pullWithProgress`.
 * @throws PullError as `pullPath` does
 */
export async function pullPathWithProgress(
  image: string,
  selection: PathSelection,
  options: OptionValues,
  signal: AbortSignal,
  shared: SharedState = {},
): Promise<PathResult> {
  return withProgress(options, signal, shared, (given) => pullPath(image, selection, given));
}

async function withProgress<T extends PullResult>(
  options: OptionValues,
  signal: AbortSignal,
  { warned = new Set(), ...state }: SharedState,
  pull: (options: RunOptions) => Promise<T>,
): Promise<T> {
  const renderer = await createRenderer(options);
  return withRenderer(renderer, (show) => {
    const onEvent = (event: PullEvent): void => {
      if (event.event === 'warning') {
        if (warned.has(event.message)) return;
        warned.add(event.message);
      }
      show(event);
    };
    return pull({ ...pullOptionsOf(options, process.env), ...state, signal, onEvent });
  });
}

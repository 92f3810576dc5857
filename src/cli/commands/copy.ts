import { type CopyOptions, type CopyResult, copyImage } from '../../api/copy.js';
import { type CopyDestination, checkStdout, isStdout, parseCopyDestination } from '../destination.js';
import { jsonLine } from '../format-text.js';
import type { OptionValues } from '../options.js';
import { createRenderer, withRenderer } from '../progress/renderer.js';
import { pullOptionsOf, readPassword } from '../pull-options.js';
import type { SharedState } from '../pull-with-progress.js';
import { untilSignal } from '../signals.js';

/**
 * `zpull copy IMAGE DEST`: prints the digest of the manifest, or of the index with
 * `--all-platforms`, unless the copy goes to stdout.
 */
export async function runCopy(words: readonly string[], given: OptionValues): Promise<number> {
  const [image = '', text = ''] = words;
  const destination = parseCopyDestination(text);
  if (isStdout(destination)) checkStdout(text, given.json, process.stdout.isTTY);
  const options = await readPassword(given);
  const result = await untilSignal(
    (signal) => copyWithProgress(image, destination, options, signal),
    isStdout(destination) ? undefined : 'at the destination',
  );
  if (isStdout(destination)) return 0;
  const { json = false } = options;
  process.stdout.write(json ? jsonLine({ ...result, destination: text }) : `${result.digest}\n`);
  return 0;
}

/**
 * Copies an image with the options of the command line and shows progress on stderr. Tokens may
 * come from a pull before it.
 * @throws PullError as `copyImage` and `throughFile` do
 */
export async function copyWithProgress(
  image: string,
  destination: CopyDestination,
  options: OptionValues,
  signal: AbortSignal,
  { tokens }: SharedState = {},
): Promise<CopyResult> {
  const renderer = await createRenderer(options, process.stderr, 'at the destination');
  const allPlatforms = options['all-platforms'] === true;
  const copyTo = (target: CopyOptions['destination']) =>
    withRenderer(renderer, (onEvent) =>
      copyImage(image, {
        ...pullOptionsOf(options, process.env),
        ...(tokens && { tokens }),
        destination: target,
        allPlatforms,
        signal,
        onEvent,
      }),
    );
  if (!isStdout(destination)) return copyTo(destination);
  const { throughFile } = await import('../through-file.js');
  return throughFile((path) => copyTo({ ...destination, path }), signal);
}

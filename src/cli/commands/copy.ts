import { checkStdout, isStdout, parseCopyDestination, type CopyDestination } from '../destination.js';
import type { OptionValues } from '../options.js';
import { jsonLine } from '../format-text.js';
import { readPassword, pullOptionsOf } from '../pull-options.js';
import { untilSignal } from '../signals.js';
import { type CopyOptions, type CopyResult, copyImage } from '../../api/copy.js';
import { createRenderer, shownBy } from '../progress/create-renderer.js';
import type { Shared } from '../pull-with-progress.js';

/** `zpull copy IMAGE DEST`: prints the digest of the manifest, or of the index with all platforms, unless the copy goes there. */
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
 * Copies an image as the command line says, with what it shares with a pull before it, and shows on stderr how it goes.
 * @throws PullError as `copyImage` and `throughFile` do
 */
export async function copyWithProgress(
  image: string,
  destination: CopyDestination,
  options: OptionValues,
  signal: AbortSignal,
  { tokens }: Shared = {},
): Promise<CopyResult> {
  const renderer = await createRenderer(options, process.stderr, 'at the destination');
  const allPlatforms = options['all-platforms'] === true;
  const copyTo = (place: CopyOptions['destination']) =>
    shownBy(renderer, (onEvent) =>
      copyImage(image, {
        ...pullOptionsOf(options, process.env),
        ...(tokens && { tokens }),
        destination: place,
        allPlatforms,
        signal,
        onEvent,
      }),
    );
  if (!isStdout(destination)) return copyTo(destination);
  const { throughFile } = await import('../through-file.js');
  return throughFile((path) => copyTo({ ...destination, path }), signal);
}

import { type CopyOptions, type CopyResult, copyImage } from '../api/copy.js';
import { type CopyDestination, isStdout } from './destination.js';
import type { OptionValues } from './options.js';
import { createRenderer } from './progress/create-renderer.js';
import { shownBy } from './progress/renderer.js';
import { pullOptionsOf } from './pull-options.js';
import type { Shared } from './pull-with-progress.js';

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
  const { throughFile } = await import('./through-file.js');
  return throughFile((path) => copyTo({ ...destination, path }), signal);
}

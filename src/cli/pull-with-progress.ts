import { type PullOptions, type PullResult, pullImage } from '../index.js';
import type { OptionValues } from './options.js';
import { createRenderer } from './progress/create-renderer.js';
import { shownBy } from './progress/renderer.js';
import { pullOptionsOf } from './pull-options.js';

/** What all pulls of one command have together. */
export type Shared = Pick<PullOptions, 'tokens'>;

/**
 * Pulls an image as the command line says and shows on stderr how it goes.
 * @throws PullError as `pullImage` does
 */
export async function pullWithProgress(
  image: string,
  options: OptionValues,
  signal: AbortSignal,
  shared: Shared = {},
): Promise<PullResult> {
  const renderer = await createRenderer(options);
  return shownBy(renderer, (onEvent) =>
    pullImage(image, { ...pullOptionsOf(options, process.env), ...shared, signal, onEvent }),
  );
}

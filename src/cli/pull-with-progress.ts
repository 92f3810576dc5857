import { type PullOptions, type PullResult, pullImage } from '../index.js';
import type { OptionValues } from './options.js';
import { createRenderer } from './progress/create-renderer.js';
import { pullOptionsOf } from './pull-options.js';

/**
 * Pulls an image as the command line says, with what it shares with other pulls, and shows on stderr how it goes.
 * @throws PullError as `pullImage` does
 */
export async function pullWithProgress(
  image: string,
  options: OptionValues,
  signal: AbortSignal,
  shared: Pick<PullOptions, 'tokens'> = {},
): Promise<PullResult> {
  const renderer = await createRenderer(options);
  try {
    const result = await pullImage(image, {
      ...pullOptionsOf(options, process.env),
      ...shared,
      signal,
      onEvent: renderer.onEvent,
    });
    renderer.end(result);
    return result;
  } catch (error) {
    renderer.end();
    throw error;
  }
}

import { type PullResult, pullImage } from '../index.js';
import type { OptionValues } from './options.js';
import { createRenderer } from './progress/create-renderer.js';
import { pullOptionsOf } from './pull-options.js';

/**
 * Pulls an image as the command line says and shows on stderr how it goes.
 * @throws PullError as `pullImage` does
 */
export async function pullWithProgress(
  image: string,
  options: OptionValues,
  signal: AbortSignal,
): Promise<PullResult> {
  const renderer = await createRenderer(options);
  try {
    const result = await pullImage(image, {
      ...pullOptionsOf(options, process.env),
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

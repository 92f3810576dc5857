import { type PathResult, type PathSelection, type PullEvent, type PullOptions, type PullResult, pullImage, pullPath } from '../api/pull.js';
import type { OptionValues } from './options.js';
import { createRenderer, shownBy } from './progress/create-renderer.js';
import { pullOptionsOf } from './pull-options.js';

/** What all pulls of one command have together. */
export interface Shared extends Pick<PullOptions, 'tokens' | 'follower'> {
  /** Warnings that were shown: what is true of the store is told once, however many images go there. */
  readonly warned?: Set<string>;
}

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
  return withProgress(options, signal, shared, (given) => pullImage(image, given));
}

/**
 * The same for one file or directory of an image.
 * @throws PullError as `pullPath` does
 */
export async function pullPathWithProgress(
  image: string,
  selection: PathSelection,
  options: OptionValues,
  signal: AbortSignal,
  shared: Shared = {},
): Promise<PathResult> {
  return withProgress(options, signal, shared, (given) => pullPath(image, selection, given));
}

async function withProgress<T extends PullResult>(
  options: OptionValues,
  signal: AbortSignal,
  { warned = new Set(), ...shared }: Shared,
  pull: (options: PullOptions) => Promise<T>,
): Promise<T> {
  const renderer = await createRenderer(options);
  return shownBy(renderer, (show) => {
    const onEvent = (event: PullEvent): void => {
      if (event.event === 'warning') {
        if (warned.has(event.message)) return;
        warned.add(event.message);
      }
      show(event);
    };
    return pull({ ...pullOptionsOf(options, process.env), ...shared, signal, onEvent });
  });
}

/** The documented part of a result, as `--json` prints it: figures for benchmarks stay inside. */
export function publicResult({ measured: _, ...result }: PullResult): Omit<PullResult, 'measured'> {
  return result;
}

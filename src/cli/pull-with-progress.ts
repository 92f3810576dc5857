import {
  type PathResult,
  type PathSelection,
  type PullEvent,
  type PullOptions,
  type PullResult,
  pullImage,
  pullPath,
} from '../api/pull.js';
import type { OptionValues } from './options.js';
import { createRenderer, withRenderer } from './progress/renderer.js';
import { pullOptionsOf } from './pull-options.js';

/** What the pulls of one command share. */
export interface SharedState extends Pick<PullOptions, 'tokens' | 'follower'> {
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
  { warned = new Set(), ...shared }: SharedState,
  pull: (options: PullOptions) => Promise<T>,
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
    return pull({ ...pullOptionsOf(options, process.env), ...shared, signal, onEvent });
  });
}

/** The documented part of a result, which `--json` prints: not the figures for benchmarks. */
export function publicResult({ measured: _, ...result }: PullResult): Omit<PullResult, 'measured'> {
  return result;
}

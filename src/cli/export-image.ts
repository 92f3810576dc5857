import {
  checkDestination,
  exportDockerArchive,
  exportLayers,
  exportRootfs,
  exportTar,
} from '../api/export.js';
import type { PullResult } from '../api/pull.js';
import type { Destination } from './destination.js';
import type { OptionValues } from './options.js';
import { createRenderer } from './progress/create-renderer.js';
import { UsageError } from './usage-error.js';

/** What an export did, as `--json` prints it. */
export interface ExportOutcome {
  readonly image: string;
  readonly digest: string;
  readonly destination: string;
  /** Of a destination that has a file for each layer. */
  readonly files?: readonly string[];
}

/** Whether the tar takes the standard output for itself. */
export function isStdout({ scheme, path }: Destination): boolean {
  return scheme === 'tar' && path === '-';
}

/**
 * Refuses a destination at which no export ends well, before anything is pulled for it.
 * @throws UsageError for a tar and a result that would mix on the standard output; PullError as the exports do
 */
export function checkExport(destination: Destination, options: OptionValues): void {
  if (!isStdout(destination)) {
    checkDestination(destination.scheme, destination.path, options.force === true);
  } else if (options.json === true) {
    throw new UsageError(
      'tar:- and --json both write to the standard output',
      'leave out --json, or name a file',
    );
  }
}

/**
 * Exports an image that was pulled under the name `reference` and shows on stderr how it goes.
 * @throws PullError as the exports do
 */
export async function exportImage(
  reference: string,
  pulled: PullResult,
  destination: Destination,
  options: OptionValues,
  signal: AbortSignal,
): Promise<ExportOutcome> {
  const { image, digest, store, layers } = pulled;
  const { scheme, path } = destination;
  const renderer = await createRenderer(options);
  const common = { store, diffIds: layers.map(({ diffId }) => diffId), signal, onEvent: renderer.onEvent };
  const outcome = { image, digest, destination: `${scheme}:${path}` };
  try {
    switch (scheme) {
      case 'tar':
        await exportTar({ ...common, ...(!isStdout(destination) && { file: path }) });
        return outcome;
      case 'rootfs':
        await exportRootfs({ ...common, directory: path, force: options.force === true });
        return outcome;
      case 'layers':
        return { ...outcome, files: await exportLayers({ ...common, directory: path }) };
      case 'docker-archive':
        await exportDockerArchive({ ...common, file: path, digest, reference });
        return outcome;
    }
  } finally {
    renderer.end();
  }
}

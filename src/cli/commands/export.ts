import { exportLayers, PullError } from '../../index.js';
import { parseDestination } from '../destination.js';
import type { OptionValues } from '../options.js';
import { jsonLine } from '../printable.js';
import { pullWithProgress } from '../pull-with-progress.js';
import { readPassword } from '../read-password.js';
import { untilSignal } from '../signals.js';

/** `zpull export IMAGE DEST`: prints the destination. An image in the store is not looked up again unless told. */
export async function runExport(words: readonly string[], options: OptionValues): Promise<number> {
  const [image = '', text = ''] = words;
  const { scheme, path } = parseDestination(text);
  if (scheme !== 'layers') {
    throw new PullError('unsupported', `this version cannot export to ${scheme}:`, {
      hint: `write each layer's tar instead: zpull export ${image} layers:DIR`,
    });
  }
  const given = await readPassword(options);
  const result = await untilSignal((signal) => exportPulled(image, path, given, signal));
  process.stdout.write(options.json === true ? jsonLine(result) : `${result.destination}\n`);
  return 0;
}

interface ExportResult {
  readonly image: string;
  readonly digest: string;
  readonly destination: string;
  readonly files: readonly string[];
}

async function exportPulled(
  image: string,
  directory: string,
  options: OptionValues,
  signal: AbortSignal,
): Promise<ExportResult> {
  const pulled = await pullWithProgress(image, { policy: 'missing', ...options }, signal);
  const { store, digest, layers } = pulled;
  const files = await exportLayers({ store, directory, diffIds: layers.map(({ diffId }) => diffId), signal });
  return { image, digest, destination: `layers:${directory}`, files };
}

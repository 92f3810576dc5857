import type { PullResult } from '../../index.js';
import { type Destination, parseDestination } from '../destination.js';
import { checkStdout, exportImage, isStdout } from '../export-image.js';
import type { OptionValues } from '../options.js';
import { jsonLine } from '../printable.js';
import { publicResult } from '../public-result.js';
import { pullWithProgress } from '../pull-with-progress.js';
import { readPassword } from '../read-password.js';
import { failureOf, reportFailure } from '../report-failure.js';
import { untilSignal } from '../signals.js';
import { UsageError } from '../usage-error.js';

/** `zpull pull IMAGE…`: each image is pulled, whatever becomes of the others; the exit code of the first that failed. */
export async function runPull(images: readonly string[], given: OptionValues): Promise<number> {
  const destination = outputOf(images, given);
  const options = await readPassword(given);
  let exitCode = 0;
  await untilSignal(async (signal) => {
    for (const image of images) {
      try {
        await pullOne(image, destination, options, signal);
      } catch (error) {
        // Told once, by main.
        if (signal.aborted || images.length === 1) throw error;
        const failure = await failureOf(error);
        reportFailure(failure, { json: options.json === true, debug: options.debug === true });
        exitCode ||= failure.exitCode;
      }
    }
  });
  return exitCode;
}

/**
 * Where the image goes besides the store.
 * @throws UsageError when it goes nowhere that is known, or several images would go to one place
 */
function outputOf(images: readonly string[], options: OptionValues): Destination | undefined {
  const { output, force } = options;
  if (output === undefined) {
    if (force === true) throw new UsageError('--force is about --output', 'add --output rootfs:DIR');
    return undefined;
  }
  if (images.length > 1) {
    throw new UsageError('--output takes one image', 'pull them one by one, each to a place of its own');
  }
  const destination = parseDestination(output);
  checkStdout(destination, options);
  return destination;
}

async function pullOne(
  image: string,
  destination: Destination | undefined,
  options: OptionValues,
  signal: AbortSignal,
): Promise<void> {
  const result = await pullWithProgress(image, options, signal);
  if (destination === undefined) return print(result, options);
  const { files, destination: text } = await exportImage(image, result, destination, options, signal);
  if (!isStdout(destination)) print(result, options, { destination: text, ...(files && { files }) });
}

function print(result: PullResult, { json = false }: OptionValues, more: object = {}): void {
  process.stdout.write(json ? jsonLine({ ...publicResult(result), ...more }) : `${result.digest}\n`);
}

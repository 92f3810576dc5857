import type { OptionValues } from '../options.js';
import { jsonLine } from '../printable.js';
import { publicResult } from '../public-result.js';
import { pullWithProgress } from '../pull-with-progress.js';
import { readPassword } from '../read-password.js';
import { failureOf, reportFailure } from '../report-failure.js';
import { untilSignal } from '../signals.js';

/** `zpull pull IMAGE…`: each image is pulled, whatever becomes of the others; the exit code of the first that failed. */
export async function runPull(images: readonly string[], given: OptionValues): Promise<number> {
  const options = await readPassword(given);
  let exitCode = 0;
  await untilSignal(async (signal) => {
    for (const image of images) {
      try {
        const result = await pullWithProgress(image, options, signal);
        process.stdout.write(options.json === true ? jsonLine(publicResult(result)) : `${result.digest}\n`);
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

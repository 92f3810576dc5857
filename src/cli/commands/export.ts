import { isStdout, parseDestination } from '../destination.js';
import { checkExport, pullAndExport } from '../export-image.js';
import type { OptionValues } from '../options.js';
import { jsonLine } from '../printable.js';
import { pullWithProgress } from '../pull-with-progress.js';
import { readPassword } from '../read-password.js';
import { untilSignal } from '../signals.js';

/** `zpull export IMAGE DEST`: prints the destination. An image in the store is not looked up again unless told. */
export async function runExport(words: readonly string[], given: OptionValues): Promise<number> {
  const [image = '', text = ''] = words;
  const destination = parseDestination(text);
  checkExport(destination, given);
  const options = await readPassword(given);
  const { outcome } = await untilSignal(
    (signal) =>
      pullAndExport({ reference: image, destination, options, signal }, (follower) =>
        pullWithProgress(image, { policy: 'missing', ...options }, signal, follower),
      ),
    'in the store',
  );
  if (isStdout(destination)) return 0;
  process.stdout.write(options.json === true ? jsonLine(outcome) : `${outcome.destination}\n`);
  return 0;
}

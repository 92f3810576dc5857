import { isStdout, parseDestination } from '../destination.js';
import { checkExport, pullAndExport } from '../export-image.js';
import type { OptionValues } from '../options.js';
import { jsonLine } from '../printable.js';
import { pullPathWithProgress, pullWithProgress } from '../pull-with-progress.js';
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
      pullAndExport({ reference: image, destination, options, signal }, (follower) => {
        const given = { policy: 'missing', ...options } as const;
        if (options.path === undefined) return pullWithProgress(image, given, signal, follower);
        const selection = { path: options.path, asRoot: destination.scheme === 'rootfs' };
        return pullPathWithProgress(image, selection, given, signal, follower);
      }),
    'in the store',
  );
  if (isStdout(destination)) return 0;
  process.stdout.write(options.json === true ? jsonLine(outcome) : `${outcome.destination}\n`);
  return 0;
}

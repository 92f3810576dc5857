import { copyWithProgress } from '../copy-with-progress.js';
import { parseCopyDestination } from '../destination.js';
import type { OptionValues } from '../options.js';
import { jsonLine } from '../printable.js';
import { readPassword } from '../read-password.js';
import { untilSignal } from '../signals.js';

/** `zpull copy IMAGE DEST`: prints the digest of the manifest, or of the index with all platforms. */
export async function runCopy(words: readonly string[], given: OptionValues): Promise<number> {
  const [image = '', text = ''] = words;
  const destination = parseCopyDestination(text);
  const options = await readPassword(given);
  const result = await untilSignal(
    (signal) => copyWithProgress(image, destination, options, signal),
    'at the destination',
  );
  const { json = false } = options;
  process.stdout.write(json ? jsonLine({ ...result, destination: text }) : `${result.digest}\n`);
  return 0;
}

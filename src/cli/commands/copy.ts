import { copyWithProgress } from '../copy-with-progress.js';
import { checkStdout, isStdout, parseCopyDestination } from '../destination.js';
import type { OptionValues } from '../options.js';
import { jsonLine } from '../printable.js';
import { readPassword } from '../read-password.js';
import { untilSignal } from '../signals.js';

/** `zpull copy IMAGE DEST`: prints the digest of the manifest, or of the index with all platforms, unless the copy goes there. */
export async function runCopy(words: readonly string[], given: OptionValues): Promise<number> {
  const [image = '', text = ''] = words;
  const destination = parseCopyDestination(text);
  if (isStdout(destination)) checkStdout(text, given.json, process.stdout.isTTY);
  const options = await readPassword(given);
  const result = await untilSignal(
    (signal) => copyWithProgress(image, destination, options, signal),
    isStdout(destination) ? undefined : 'at the destination',
  );
  if (isStdout(destination)) return 0;
  const { json = false } = options;
  process.stdout.write(json ? jsonLine({ ...result, destination: text }) : `${result.digest}\n`);
  return 0;
}

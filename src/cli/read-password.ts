import type { OptionValues } from './options.js';
import { UsageError } from './usage-error.js';

/** A password, or a token in its place, has at most some KiB: above it is another file. */
const MAX_PASSWORD_BYTES = 64 * 1024;

/**
 * The options with the password from standard input in `creds`, if it is to come from there: it can be read once only,
 * however many images are pulled. One line end behind it is not part of it, as for docker.
 * @throws UsageError when there is none
 */
export async function readPassword(
  options: OptionValues,
  input: AsyncIterable<Buffer> = process.stdin,
): Promise<OptionValues> {
  const { username, 'password-stdin': wanted, ...others } = options;
  if (wanted !== true) return options;
  if (username?.includes(':')) throw new UsageError('a user name has no colon in it', PASSWORD_HINT);
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of input) {
    chunks.push(chunk);
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_PASSWORD_BYTES) {
      throw new UsageError('what standard input has is too long for a password', PASSWORD_HINT);
    }
  }
  const password = Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
  if (password === '') throw new UsageError('standard input has no password', PASSWORD_HINT);
  return { ...others, creds: `${username}:${password}` };
}

const PASSWORD_HINT = 'write the password into it: zpull --username USER --password-stdin IMAGE <FILE';

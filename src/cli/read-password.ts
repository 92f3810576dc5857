import { addAbortSignal, type Readable } from 'node:stream';
import { INPUT_LIMIT_MS } from '../files/read-input.js';
import type { OptionValues } from './options.js';
import { UsageError } from './usage-error.js';

/** A password, or a token in its place, has at most some KiB: above it is another file. */
const MAX_PASSWORD_BYTES = 64 * 1024;

/**
 * The options with the password from standard input in `creds`, if it is to come from there: it can be read once only,
 * however many images are pulled. One line end behind it is not part of it, as for docker.
 * @throws UsageError when there is none, or its end does not come within `limitMs`
 */
export async function readPassword(
  options: OptionValues,
  input: Readable = process.stdin,
  limitMs = INPUT_LIMIT_MS,
): Promise<OptionValues> {
  const { username, 'password-stdin': wanted, ...others } = options;
  if (wanted !== true) return options;
  if (username?.includes(':')) throw new UsageError('a user name has no colon in it', PASSWORD_HINT);
  const password = (await readInput(input, limitMs)).replace(/\r?\n$/, '');
  if (password === '') throw new UsageError('standard input has no password', PASSWORD_HINT);
  return { ...others, creds: `${username}:${password}` };
}

async function readInput(input: Readable, limitMs: number): Promise<string> {
  const bytes = Buffer.alloc(MAX_PASSWORD_BYTES);
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), limitMs);
  let length = 0;
  try {
    for await (const chunk of addAbortSignal(limit.signal, input) as AsyncIterable<Buffer>) {
      if (length + chunk.length > MAX_PASSWORD_BYTES) {
        throw new UsageError('what standard input has is too long for a password', PASSWORD_HINT);
      }
      length += chunk.copy(bytes, length);
    }
  } catch (error) {
    if (!limit.signal.aborted) throw error;
    throw new UsageError(`standard input did not end within ${limitMs / 1000} s`, PASSWORD_HINT);
  } finally {
    clearTimeout(timer);
  }
  return bytes.toString('utf8', 0, length);
}

const PASSWORD_HINT = 'write the password into it: zpull --username USER --password-stdin IMAGE <FILE';

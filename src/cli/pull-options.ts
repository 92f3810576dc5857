import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { addAbortSignal, type Readable } from 'node:stream';
import type { PullOptions } from '../api/pull.js';
import { INPUT_LIMIT_MS } from '../files/read-input.js';
import { UsageError } from './failure.js';
import type { OptionValues } from './options.js';

/** A password or a token has at most some KiB; anything longer is some other file. */
const MAX_PASSWORD_BYTES = 64 * 1024;

const PASSWORD_HINT = 'write the password into it: zpull --username USER --password-stdin IMAGE <FILE';

/** The options of a pull from the command line and the environment. */
export function pullOptionsOf(values: OptionValues, env: NodeJS.ProcessEnv): PullOptions {
  const platform = values.platform ?? env['DOCKER_DEFAULT_PLATFORM'];
  return {
    store: storeOf(values, env),
    ...(platform !== undefined && platform !== '' && { platform }),
    ...given('policy', values.policy),
    ...given('workers', values.workers),
    ...given('connections', values.connections),
    ...given('patienceMs', milliseconds(values.patience)),
    ...given('connectTimeoutMs', milliseconds(values['connect-timeout'])),
    ...given('idleTimeoutMs', milliseconds(values['idle-timeout'])),
    ...given('answerTimeoutMs', milliseconds(values['answer-timeout'])),
    ...given('allowForeign', values['allow-foreign']),
    ...given('insecurePolicy', values['insecure-policy']),
    ...given('limitRate', values['limit-rate']),
    ...given('plainHttp', values['plain-http']),
    ...given('allowHttpStorage', values['allow-http-storage']),
    ...given('tlsVerify', values['tls-verify']),
    ...given('certDir', values['cert-dir']),
    ...given('authfile', values.authfile === undefined ? undefined : resolve(values.authfile)),
    ...given('credentials', values.creds === undefined ? undefined : splitCreds(values.creds)),
    ...given('debug', values.debug),
  };
}

/**
 * `USER[:PASS]`: a user name has no colon, a password may. Without one the password is empty, as
 * for skopeo.
 */
function splitCreds(creds: string): NonNullable<PullOptions['credentials']> {
  const colon = creds.indexOf(':');
  return colon < 0
    ? { username: creds, password: '' }
    : { username: creds.slice(0, colon), password: creds.slice(colon + 1) };
}

function given<Name extends keyof PullOptions>(
  name: Name,
  value: PullOptions[Name] | undefined,
): Partial<Pick<PullOptions, Name>> {
  return value === undefined ? {} : ({ [name]: value } as Pick<PullOptions, Name>);
}

function milliseconds(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.max(1, Math.round(seconds * 1000));
}

/** The absolute path of the store that a command works on. */
export function storeOf(values: OptionValues, env: NodeJS.ProcessEnv): string {
  return values.store === undefined ? defaultStore(env) : resolve(values.store);
}

/**
 * The absolute path of the store without `--store`: `$ZPULL_STORE`, else `$XDG_DATA_HOME/zpull`,
 * else `~/.local/share/zpull`. A relative XDG_DATA_HOME is ignored, as the XDG base directory
 * specification asks.
 */
export function defaultStore(env: NodeJS.ProcessEnv): string {
  const { ZPULL_STORE: store, XDG_DATA_HOME: dataHome } = env;
  if (store !== undefined && store !== '') return resolve(store);
  if (dataHome !== undefined && isAbsolute(dataHome)) return join(dataHome, 'zpull');
  return join(homedir(), '.local', 'share', 'zpull');
}

/**
 * Replaces `--username` and `--password-stdin` by credentials with the password from standard
 * input, which can be read once only, however many images are pulled. One line end after the
 * password is not part of it, as for docker.
 * @throws UsageError when the input has no password or does not end within `limitMs`
 */
export async function readPassword(
  options: OptionValues,
  input: Readable = process.stdin,
  limitMs = INPUT_LIMIT_MS,
): Promise<OptionValues> {
  const { username, 'password-stdin': isOnInput, ...others } = options;
  if (isOnInput !== true) return options;
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
        throw new UsageError('standard input is too long for a password', PASSWORD_HINT);
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

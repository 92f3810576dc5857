import { type ChildProcess, spawn } from 'node:child_process';
import { GrowingBuffer } from '../format/arrays.js';
import { PullError } from '../format/error.js';
import { type Secret, secretOf } from './auth-file.js';

/** A helper may take seconds to reach a cloud, or wait for the password of a keyring. */
const HELPER_TIMEOUT_MS = 60_000;

/** Passwords from clouds have 1 to 4 KiB. */
const MAX_OUTPUT_BYTES = 64 * 1024;

/** A helper without credentials prints this (docker-credential-helpers, credentials/error.go). */
const NOT_FOUND = 'credentials not found in native keychain';

const NOT_INSTALLED = 'not-installed';

export interface HelperCall {
  /** What follows `docker-credential-`. */
  readonly name: string;
  /** The server that requires credentials. */
  readonly server: string;
  readonly timeoutMs?: number;
  /** Ends the program. */
  readonly signal: AbortSignal;
}

/**
 * Runs a credential helper (docker-credential-helpers, "Development"): `get`, the server on stdin,
 * JSON on stdout. The program and all its children are killed after a minute. Its output may be
 * secret and is not repeated.
 * @returns undefined when it has no credentials; `not-installed` when there is no such program
 * @throws PullError `unauthorized` when it fails
 */
export async function runCredentialHelper(call: HelperCall): Promise<Secret | 'not-installed' | undefined> {
  const { ended, output } = await run(call);
  if (ended === NOT_INSTALLED) return ended;
  if (ended === 0) return readAnswer(call, output);
  if (typeof ended === 'number' && output.trim() === NOT_FOUND) return undefined;
  throw failed(call, typeof ended === 'number' ? `ended with exit code ${ended}` : ended);
}

interface Ended {
  /** The exit code, or what happened instead. */
  readonly ended: number | string;
  readonly output: string;
}

function run(call: HelperCall): Promise<Ended> {
  const { name, server, timeoutMs = HELPER_TIMEOUT_MS, signal } = call;
  return new Promise((resolve) => {
    const output = new GrowingBuffer();
    let finished = false;
    // In its own process group, so that its children can be killed with it.
    const child = spawn(`docker-credential-${name}`, ['get'], {
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const timer = setTimeout(() => finish(`did not answer within ${timeoutMs / 1000} s`), timeoutMs);
    const abort = (): void => finish('was stopped');

    function finish(ended: number | string): void {
      if (finished) return;
      finished = true;
      clearTimeout(timer);
      signal.removeEventListener('abort', abort);
      if (typeof ended === 'string') killGroup(child);
      child.stdout.destroy();
      resolve({ ended, output: output.bytes().toString('utf8') });
    }

    signal.addEventListener('abort', abort);
    if (signal.aborted) abort();
    child.stdout.on('data', (chunk: Buffer) => {
      if (finished) return;
      output.add(chunk);
      if (output.length > MAX_OUTPUT_BYTES) finish('answered with more than 64 KiB');
    });
    child.on('error', (error: NodeJS.ErrnoException) => {
      finish(error.code === 'ENOENT' ? NOT_INSTALLED : `cannot be started (${error.code ?? error.name})`);
    });
    child.on('close', (code, by) => finish(code ?? `was ended by ${by}`));
    // A helper that exits without reading breaks the pipe; its exit code says more.
    child.stdin.on('error', () => {});
    // Without a line feed: docker sends none, and some helpers take all input for the name.
    child.stdin.end(server);
  });
}

function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has exited.
  }
}

/** `{"Username": …, "Secret": …}`; both are absent, null or empty without credentials. */
function readAnswer(call: HelperCall, output: string): Secret | undefined {
  let answer: unknown;
  try {
    answer = JSON.parse(output);
  } catch {
    answer = undefined;
  }
  const isObject = typeof answer === 'object' && answer !== null;
  const fields: Readonly<Record<string, unknown>> = isObject ? { ...(answer as object) } : {};
  const username = fields['Username'] ?? '';
  const secret = fields['Secret'] ?? '';
  if (isObject && username === '' && secret === '') return undefined;
  if (typeof username === 'string' && username !== '' && typeof secret === 'string' && 'Secret' in fields) {
    return secretOf(username, secret);
  }
  throw failed(call, 'answered without a user name and a secret');
}

function failed({ name, server }: HelperCall, what: string): PullError {
  const program = `docker-credential-${name}`;
  return new PullError('unauthorized', `the credential helper ${program} ${what}`, {
    hint: `"printf %s ${server} | ${program} get" shows what it says; --authfile or --creds do without it`,
  });
}

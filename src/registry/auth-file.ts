import type { ChildProcess } from 'node:child_process';
import { GrowingBuffer } from '../format/arrays.js';
import { PullError } from '../format/error.js';
import { type Fields, isObject } from '../format/strict-json.js';

/** The secret that identifies a user to a registry or its token server. */
export type Secret =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** A refresh token: a token server exchanges it for tokens that the registry accepts. */
  | { readonly kind: 'identity-token'; readonly token: string };

/** A secret in a file, or a helper that has one. */
export type Offer =
  | { readonly kind: 'secret'; readonly secret: Secret }
  /** `docker-credential-NAME get`, with the name of the server on stdin. */
  | { readonly kind: 'helper'; readonly name: string; readonly server: string };

/** The parts of docker's `config.json` and containers' `auth.json` that are about credentials. */
export interface AuthFile {
  /** The path of the file, or the name of the variable. */
  readonly name: string;
  readonly auths: Readonly<Record<string, Fields>>;
  readonly credHelpers: Readonly<Record<string, string>>;
  readonly credsStore: string | undefined;
}

/** Docker's key for Docker Hub in its files and helpers, from a time without other registries. */
const HUB_KEY = 'https://index.docker.io/v1/';
const HUB_HOSTS = ['docker.io', 'index.docker.io', 'registry-1.docker.io'];

/** The name becomes part of a program's name on PATH: it must not turn into a path. */
const HELPER_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** The user name of helpers and files for a secret that is an identity token. */
const TOKEN_USER = '<token>';

/**
 * Reads docker's `config.json` or containers' `auth.json` (containers-auth.json(5)); an empty one
 * has no credentials. Errors repeat nothing of the text, as it is secret.
 * @throws PullError `option-malformed`
 */
export function parseAuthFile(text: string, name: string): AuthFile {
  let parsed: unknown = {};
  try {
    if (text.trim() !== '') parsed = JSON.parse(text);
  } catch {
    throw malformed(name, 'it is not JSON');
  }
  const file = fieldsOf(parsed, name, 'it is not a JSON object');
  const auths = fieldsOf(file['auths'] ?? {}, name, '"auths" is not an object');
  const credHelpers = fieldsOf(file['credHelpers'] ?? {}, name, '"credHelpers" is not an object');
  const credsStore = file['credsStore'] ?? '';
  const entryOf = (key: string, entry: unknown) =>
    fieldsOf(entry ?? {}, name, `the entry of "${key}" is not an object`);
  return {
    name,
    auths: mapKeys(auths, entryOf),
    credHelpers: mapKeys(credHelpers, (key, helper) => helperOf(helper, name, `the helper of "${key}"`)),
    credsStore: helperOf(credsStore, name, '"credsStore"') || undefined,
  };
}

/** The values by key, with and without the trailing slash of keys like `ghcr.io/`. */
function mapKeys<T>(fields: Fields, read: (key: string, value: unknown) => T): Record<string, T> {
  const entries = Object.entries(fields).map(([key, value]) => [key, read(key, value)] as const);
  const trimmed = entries.map(([key, value]) => [isUrl(key) ? key : key.replace(/\/+$/, ''), value] as const);
  return Object.fromEntries([...trimmed, ...entries]);
}

function isUrl(key: string): boolean {
  return /^https?:\/\//.test(key);
}

/**
 * The offers of a file for a repository, in the order in which to try them: the entries of `auths`
 * for the longest prefix of `host/path` first, then the helper of the host, the helper of all
 * hosts, and the entry of the host, which docker ignores as well when a helper has credentials. An
 * entry is read in its turn: a malformed one does not hide those before it.
 * @throws PullError `option-malformed` for an entry that cannot be read
 */
export function* offersOf(
  file: AuthFile,
  host: string,
  repository: string,
): Generator<Offer, void, undefined> {
  const parts = repository.split('/');
  const paths = parts.map((_, i) => [host, ...parts.slice(0, parts.length - i)].join('/'));
  const entry = hostKey(file.auths, host);
  for (const path of paths) if (Object.hasOwn(file.auths, path)) yield* secretOffers(file, path);
  yield* helperOffers(file, host);
  if (entry !== undefined) yield* secretOffers(file, entry);
}

/**
 * The helper of the host, then that of all hosts. As in docker, an empty helper of the host means
 * none at all. For Docker Hub a helper is called with the key that names it first, and then with
 * the other: docker and podman store it under different ones.
 */
function helperOffers(file: AuthFile, host: string): Offer[] {
  const key = hostKey(file.credHelpers, host);
  const hostHelper = key === undefined ? undefined : file.credHelpers[key];
  if (hostHelper === '') return [];
  const isHub = host === 'docker.io';
  const offers = (name: string | undefined, servers: readonly (string | undefined)[]): Offer[] =>
    name === undefined
      ? []
      : [...new Set(servers)].flatMap((server) =>
          server === undefined ? [] : [{ kind: 'helper', name, server }],
        );
  return [
    ...offers(hostHelper, isHub ? [key, HUB_KEY, host] : [host]),
    ...offers(file.credsStore, isHub ? [HUB_KEY, host] : [host]),
  ];
}

/**
 * The secret for a user name and a password, which is an identity token if the user name says so.
 */
function secretOf(username: string, password: string): Secret {
  return username === TOKEN_USER
    ? { kind: 'identity-token', token: password }
    : { kind: 'password', username, password };
}

/** The key of a host: its name, or a URL of it, as docker wrote for years. */
function hostKey(keys: Readonly<Record<string, unknown>>, host: string): string | undefined {
  const exact = host === 'docker.io' ? ['docker.io', HUB_KEY] : [host];
  return (
    exact.find((key) => Object.hasOwn(keys, key)) ?? Object.keys(keys).find((key) => hostOf(key) === host)
  );
}

function hostOf(key: string): string {
  const [, url] = /^https?:\/\/([^/]*)/.exec(key) ?? [];
  const host = url ?? key;
  return HUB_HOSTS.includes(host) ? 'docker.io' : host;
}

function secretOffers(file: AuthFile, key: string): Offer[] {
  const secret = readSecret(file.auths[key]!, (what) =>
    malformed(file.name, `the entry of "${key}" ${what}`),
  );
  return secret === undefined ? [] : [{ kind: 'secret', secret }];
}

/** The secret of an entry; docker leaves an empty one when a helper stores the secret. */
function readSecret(entry: Fields, wrong: (what: string) => PullError): Secret | undefined {
  const text = (name: string): string => {
    const value = entry[name] ?? '';
    if (typeof value !== 'string') throw wrong(`has a "${name}" that is not a string`);
    return value;
  };
  if (text('identitytoken') !== '') return { kind: 'identity-token', token: text('identitytoken') };
  if (text('auth') === '') {
    return text('username') === '' ? undefined : secretOf(text('username'), text('password'));
  }
  const decoded = Buffer.from(text('auth'), 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  if (colon <= 0) throw wrong('has an "auth" that is not USER:PASSWORD in base64');
  // Docker's first versions padded it with zero bytes.
  return secretOf(decoded.slice(0, colon), decoded.slice(colon + 1).replace(/\0+$/, ''));
}

/** The name of a helper; '' for none. */
function helperOf(helper: unknown, name: string, what: string): string {
  if (helper === '' || helper === null) return '';
  if (typeof helper !== 'string' || !HELPER_NAME.test(helper)) throw malformed(name, `${what} is not a name`);
  return helper;
}

function fieldsOf(value: unknown, name: string, problem: string): Fields {
  if (isObject(value)) return value;
  throw malformed(name, problem);
}

function malformed(name: string, problem: string): PullError {
  return new PullError('option-malformed', `the credentials in ${name} cannot be read: ${problem}`, {
    hint: 'repair the file, remove it and log in again with "docker login" or "podman login", or name another with --authfile',
  });
}

/** A helper may take seconds to reach a cloud, or wait for the password of a keyring. */
const HELPER_TIMEOUT_MS = 60_000;

/** Passwords from clouds have 1 to 4 KiB. */
const MAX_OUTPUT_BYTES = 64 * 1024;

/** A helper without credentials prints this (docker-credential-helpers, credentials/error.go). */
const NOT_FOUND = 'credentials not found in native keychain';

const NOT_INSTALLED = 'not-installed';

interface HelperCall {
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

async function run({ name, server, timeoutMs = HELPER_TIMEOUT_MS, signal }: HelperCall): Promise<Ended> {
  // Few pulls need the module that starts processes.
  const { spawn } = await import('node:child_process');
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
    // Refused below.
  }
  if (typeof answer === 'object' && answer !== null) {
    const fields = answer as Fields;
    const username = fields['Username'] ?? '';
    const secret = fields['Secret'] ?? '';
    if (username === '' && secret === '') return undefined;
    const hasSecret = typeof secret === 'string' && 'Secret' in fields;
    if (typeof username === 'string' && username !== '' && hasSecret) return secretOf(username, secret);
  }
  throw failed(call, 'answered without a user name and a secret');
}

function failed({ name, server }: HelperCall, what: string): PullError {
  const program = `docker-credential-${name}`;
  return new PullError('unauthorized', `the credential helper ${program} ${what}`, {
    hint: `"printf %s ${server} | ${program} get" shows what it says; --authfile or --creds do without it`,
  });
}

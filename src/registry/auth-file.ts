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
export function secretOf(username: string, password: string): Secret {
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

import { PullError } from '../format/error.js';
import { type Fields, isObject } from '../format/strict-json.js';

/** What lets a registry or its token server know a user. */
export type Secret =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** A refresh token: a token server changes it for tokens that a registry takes. */
  | { readonly kind: 'identity-token'; readonly token: string };

/** One way to a secret that a file offers. */
export type Offer =
  | { readonly kind: 'secret'; readonly secret: Secret }
  /** `docker-credential-NAME get`, to be told the name of a server. */
  | { readonly kind: 'helper'; readonly name: string; readonly server: string };

/** The parts of docker's `config.json` and containers' `auth.json` that are about credentials. */
export interface AuthFile {
  /** The file's path, or the variable it stands in. */
  readonly name: string;
  readonly auths: Readonly<Record<string, Fields>>;
  readonly credHelpers: Readonly<Record<string, string>>;
  readonly credsStore: string | undefined;
}

/** How docker names Docker Hub to its files and helpers, since before there were other registries. */
const HUB_KEY = 'https://index.docker.io/v1/';
const HUB_HOSTS = ['docker.io', 'index.docker.io', 'registry-1.docker.io'];

/** It becomes part of a program's name: what is looked for on PATH must not turn into a path. */
const HELPER_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** What helpers and their callers write in place of a user name when the secret is an identity token. */
const TOKEN_USER = '<token>';

/**
 * Reads docker's `config.json` or containers' `auth.json` (containers-auth.json(5)); one without content is one
 * without credentials. Nothing of the text is in an error: it is secret.
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

/** The values by their keys, and by those without a slash at the end, which some programs write: `ghcr.io/`. */
function mapKeys<T>(fields: Fields, read: (key: string, value: unknown) => T): Record<string, T> {
  const entries = Object.entries(fields).map(([key, value]) => [key, read(key, value)] as const);
  const trimmed = entries.map(([key, value]) => [isUrl(key) ? key : key.replace(/\/+$/, ''), value] as const);
  return Object.fromEntries([...trimmed, ...entries]);
}

function isUrl(key: string): boolean {
  return /^https?:\/\//.test(key);
}

/**
 * What a file offers for a repository, in the order in which it is to be tried: entries of `auths` for the longest
 * part of `host/path` first, then what it says of the host: its helper, the helper of all hosts, its entry, which
 * docker does not look at either while a helper has an answer. An entry is read when it is its turn: one that cannot be read hides no other
 * before it.
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
 * The helper of the host, then that of all hosts. An empty one of the host means that it has none, as docker has it. Docker Hub is
 * asked for by the key that names its helper first, and then by the other: docker and podman store it under different ones.
 */
function helperOffers(file: AuthFile, host: string): Offer[] {
  const key = hostKey(file.credHelpers, host);
  const own = key === undefined ? undefined : file.credHelpers[key];
  if (own === '') return [];
  const isHub = host === 'docker.io';
  const offers = (name: string | undefined, servers: readonly (string | undefined)[]): Offer[] =>
    name === undefined
      ? []
      : [...new Set(servers)].flatMap((server) =>
          server === undefined ? [] : [{ kind: 'helper', name, server }],
        );
  return [
    ...offers(own, isHub ? [key, HUB_KEY, host] : [host]),
    ...offers(file.credsStore, isHub ? [HUB_KEY, host] : [host]),
  ];
}

/** The secret for a user name as helpers and files have it, which may say that the rest is an identity token. */
export function secretOf(username: string, password: string): Secret {
  return username === TOKEN_USER
    ? { kind: 'identity-token', token: password }
    : { kind: 'password', username, password };
}

/** The key that stands for a host: its name, or a URL of it, which docker wrote for years. */
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

/** The secret of an entry; none for one that is empty, as docker leaves behind where a helper keeps it. */
function readSecret(entry: Fields, wrong: (what: string) => PullError): Secret | undefined {
  const text = (name: string): string => {
    const value = entry[name] ?? '';
    if (typeof value !== 'string') throw wrong(`has a "${name}" that is no text`);
    return value;
  };
  if (text('identitytoken') !== '') return { kind: 'identity-token', token: text('identitytoken') };
  if (text('auth') === '') {
    return text('username') === '' ? undefined : secretOf(text('username'), text('password'));
  }
  const decoded = Buffer.from(text('auth'), 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  if (colon <= 0) throw wrong('has an "auth" that is not USER:PASSWORD in base64');
  // Docker's first versions filled it up with zero bytes.
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
    hint: 'mend the file, remove it and log in again with "docker login" or "podman login", or name another with --authfile',
  });
}

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  type Input,
  MAX_CONFIGURATION_FILE_BYTES,
  readFileOrPipe,
  readRegularFile,
} from '../files/read-input.js';
import { PullError } from '../format/error.js';
import { type Reference, withoutUser } from '../format/reference.js';
import { isObject } from '../format/strict-json.js';

export interface Mirror {
  /** `host[:port][/path]`, which replaces the prefix. */
  readonly location: string;
  readonly insecure: boolean;
  /** The references for which it is used: all, those with a digest, or those with a tag. */
  readonly pullFromMirror: 'all' | 'digest-only' | 'tag-only';
}

/** The rule for images whose names begin with `prefix`. */
export interface RegistryRule {
  /** `host[:port][/path]`, or `*.domain` for all hosts below it. */
  readonly prefix: string;
  /** Replaces the prefix; undefined: names stay unchanged. */
  readonly location: string | undefined;
  readonly insecure: boolean;
  readonly blocked: boolean;
  readonly mirrors: readonly Mirror[];
  /** The file that has the rule. */
  readonly file: string;
}

/** The merged registries.conf files of this machine and this user. */
export interface Registries {
  readonly rules: readonly RegistryRule[];
  /** Full names by short ones. */
  readonly aliases: ReadonlyMap<string, string>;
  /** The registries to search for a short name without an alias; empty: Docker Hub. */
  readonly searched: readonly string[];
}

const SYSTEM_DIRECTORY = '/etc/containers';

const VERSION_1_HINT = 'write it in version 2: [[registry]] tables and unqualified-search-registries';

/**
 * Reads registries.conf and registries.conf.d (containers-registries.conf(5), version 2):
 * `$CONTAINERS_REGISTRIES_CONF` alone, or the user's file, else the system's, merged with the
 * `*.conf` beside the system's and then those beside the user's. The system's files are below
 * `root`.
 * @returns undefined when there is none: the TOML parser is not loaded then
 * @throws PullError `option-malformed` naming the file
 */
export async function readRegistries(env: NodeJS.ProcessEnv, root = '/'): Promise<Registries | undefined> {
  const files = await configFiles(env, root);
  if (files.length === 0) return undefined;
  const { parse } = await import('smol-toml');
  const rules = new Map<string, RegistryRule>();
  const aliases = new Map<string, string>();
  let searched: readonly string[] = [];
  for (const { path, text } of files) {
    const fields = new Fields(parseToml(parse, path, text), path);
    if (fields.has('registries')) throw malformed(path, 'has version 1 of its format', VERSION_1_HINT);
    searched = fields.strings('unqualified-search-registries') ?? searched;
    for (const [name, full] of fields.table('aliases').texts()) {
      // An empty alias removes that of an earlier file.
      if (full === '') aliases.delete(name);
      else aliases.set(name, full);
    }
    for (const entry of fields.tables('registry')) {
      const rule = readRule(entry);
      rules.set(rule.prefix, rule);
    }
  }
  return { rules: [...rules.values()], aliases, searched };
}

interface ConfigFile {
  readonly path: string;
  readonly text: string;
}

/** In the order in which they are merged. */
async function configFiles(env: NodeJS.ProcessEnv, root: string): Promise<ConfigFile[]> {
  const named = env['CONTAINERS_REGISTRIES_CONF'];
  if (named) {
    const text = textOf(named, await readFileOrPipe(named, MAX_CONFIGURATION_FILE_BYTES));
    if (text === undefined) throw malformed(named, 'which $CONTAINERS_REGISTRIES_CONF names, is not there');
    return [{ path: named, text }];
  }
  const configHome = env['XDG_CONFIG_HOME'] || (env['HOME'] && join(env['HOME'], '.config'));
  const user = configHome ? [join(configHome, 'containers')] : [];
  const directories = [join(root, SYSTEM_DIRECTORY), ...user];
  const main = directories
    .map((directory) => join(directory, 'registries.conf'))
    .reverse()
    .flatMap(fileIfPresent)
    .slice(0, 1);
  return [...main, ...directories.flatMap((directory) => dropIns(join(directory, 'registries.conf.d')))];
}

function dropIns(directory: string): ConfigFile[] {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return []; // absent, as on most machines
  }
  return names
    .filter((name) => name.endsWith('.conf'))
    .sort()
    .flatMap((name) => fileIfPresent(join(directory, name)));
}

function fileIfPresent(path: string): ConfigFile[] {
  const text = textOf(path, readRegularFile(path, MAX_CONFIGURATION_FILE_BYTES));
  return text === undefined ? [] : [{ path, text }];
}

/** Undefined: the file is absent. */
function textOf(path: string, read: Input): string | undefined {
  if ('bytes' in read) return read.bytes.toString('utf8');
  if (read.kind === 'absent') return undefined;
  const hint =
    'make it a file that this user may read, set HOME to the home of this user, or name another in CONTAINERS_REGISTRIES_CONF';
  throw malformed(path, read.problem, hint);
}

function parseToml(parse: (text: string) => unknown, path: string, text: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    const line = error instanceof Error && 'line' in error ? `, line ${String(error.line)}` : '';
    throw malformed(path, `is no TOML${line}`);
  }
}

function readRule(entry: Fields): RegistryRule {
  const location = entry.text('location')?.replace(/\/+$/, '');
  const prefix = entry.text('prefix')?.replace(/\/+$/, '') ?? location;
  if (prefix === undefined || prefix === '')
    throw malformed(entry.path, 'has a [[registry]] without location and prefix');
  const digestOnly = entry.flag('mirror-by-digest-only');
  return {
    prefix,
    location: location === '' ? undefined : location,
    insecure: entry.flag('insecure'),
    blocked: entry.flag('blocked'),
    mirrors: entry.tables('mirror').map((mirror) => readMirror(mirror, digestOnly)),
    file: entry.path,
  };
}

function readMirror(entry: Fields, digestOnly: boolean): Mirror {
  const location = entry.text('location')?.replace(/\/+$/, '');
  if (!location) throw malformed(entry.path, 'has a [[registry.mirror]] without location');
  const when = entry.text('pull-from-mirror') ?? (digestOnly ? 'digest-only' : 'all');
  if (when !== 'all' && when !== 'digest-only' && when !== 'tag-only') {
    throw malformed(entry.path, 'has a pull-from-mirror that is none of "all", "digest-only" and "tag-only"');
  }
  return { location, insecure: entry.flag('insecure'), pullFromMirror: when };
}

/** A mirror of an image, or its own registry. */
export interface Endpoint {
  /** `host[:port]`. */
  readonly host: string;
  readonly repository: string;
  /** May have no TLS, or an untrusted certificate. */
  readonly insecure: boolean;
}

/**
 * Where to request the image, in this order: its mirrors, then its own registry (or the location
 * that replaces it).
 * @throws PullError `registry-blocked`; `option-malformed` for a location that is no host with a
 *   repository
 */
export function endpointsOf(reference: Reference, registries: Registries | undefined): Endpoint[] {
  const { host, repository, digest } = reference;
  const name = `${host}/${repository}`;
  const rule = registries === undefined ? undefined : ruleFor(name, registries.rules);
  if (rule === undefined) return [{ host, repository, insecure: false }];
  if (rule.blocked) {
    throw new PullError('registry-blocked', `${rule.prefix} is blocked by ${rule.file}`, {
      hint: 'choose an image from another registry, or ask the administrator who maintains that file',
    });
  }
  const excluded = digest === undefined ? 'digest-only' : 'tag-only';
  const mirrors = rule.mirrors.filter(({ pullFromMirror }) => pullFromMirror !== excluded);
  return [...mirrors, rule].map(({ location, insecure }) => endpointAt(name, rule, location, insecure));
}

/** The rule with the longest prefix of `name`. */
function ruleFor(name: string, rules: readonly RegistryRule[]): RegistryRule | undefined {
  let best: { rule: RegistryRule; lengthChars: number } | undefined;
  for (const rule of rules) {
    const lengthChars = matchLength(name, rule.prefix);
    if (lengthChars > (best?.lengthChars ?? 0)) best = { rule, lengthChars };
  }
  return best?.rule;
}

/** How many characters of `name` the prefix covers, in complete components; 0 for none. */
function matchLength(name: string, prefix: string): number {
  if (prefix.startsWith('*.')) {
    const host = name.slice(0, name.indexOf('/'));
    // Less than the host itself: a prefix without asterisk takes precedence.
    return host.endsWith(prefix.slice(1)) ? prefix.length - 1 : 0;
  }
  return name === prefix || name.startsWith(`${prefix}/`) ? prefix.length : 0;
}

const HOST = /^(?:[\w.-]+|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?$/;
const REPOSITORY = /^[a-z0-9][\w.-]*(?:\/[a-z0-9][\w.-]*)*$/;

function endpointAt(
  name: string,
  rule: RegistryRule,
  location: string | undefined,
  insecure: boolean,
): Endpoint {
  const covered = rule.prefix.startsWith('*.') ? name.indexOf('/') : rule.prefix.length;
  const moved = location === undefined ? name : location + name.slice(covered);
  const slash = moved.indexOf('/');
  const host = moved.slice(0, Math.max(slash, 0));
  const repository = moved.slice(slash + 1);
  const isHost = HOST.test(host) && URL.canParse(`https://${host}`);
  if (!isHost || !REPOSITORY.test(repository)) {
    const hint = 'a location is a host with or without port and path, like mirror.example:5000/cache';
    throw malformed(rule.file, `makes ${name} to ${JSON.stringify(withoutUser(moved))}`, hint);
  }
  return { host, repository, insecure };
}

/**
 * The full name for a short one, by alias or by the only registry to search; undefined: Docker
 * Hub's.
 * @throws PullError `reference-malformed` when there are several registries to search, as podman
 *   would ask which one
 */
export function expandShortName(name: string, registries: Registries | undefined): string | undefined {
  if (registries === undefined) return undefined;
  const alias = registries.aliases.get(name);
  if (alias !== undefined) return alias;
  const [first, ...others] = registries.searched;
  if (first === undefined) return undefined;
  if (others.length === 0) return first === 'docker.io' ? undefined : `${first}/${name}`;
  const meant = registries.searched.map((host) => `${withoutUser(host)}/${name}`).join(', ');
  const hint = 'write the one that is meant in full, or give it an alias in registries.conf';
  const problem = `the short name ${JSON.stringify(name)} could be one of ${meant}`;
  throw new PullError('reference-malformed', problem, { hint });
}

/** A TOML table whose fields are read one by one and must have the requested type. */
class Fields {
  readonly path: string;
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(value: unknown, path: string) {
    if (!isObject(value)) throw malformed(path, 'has a value where a table belongs');
    this.path = path;
    this.#values = value;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#values, name);
  }

  text(name: string): string | undefined {
    return this.#typed(name, 'a string', (value) => typeof value === 'string');
  }

  flag(name: string): boolean {
    return this.#typed<boolean>(name, 'true or false', (value) => typeof value === 'boolean') ?? false;
  }

  strings(name: string): readonly string[] | undefined {
    return this.#typed<string[]>(
      name,
      'a list of strings',
      (value) => Array.isArray(value) && value.every((item) => typeof item === 'string'),
    );
  }

  table(name: string): Fields {
    return new Fields(this.#typed(name, 'a table', isObject) ?? {}, this.path);
  }

  tables(name: string): Fields[] {
    const list = this.#typed<unknown[]>(name, 'a list of tables', Array.isArray) ?? [];
    return list.map((item) => new Fields(item, this.path));
  }

  /** All fields, which must be strings. */
  texts(): Array<[string, string]> {
    return Object.keys(this.#values).map((name) => [name, this.text(name)!]);
  }

  #typed<T>(name: string, form: string, test: (value: unknown) => boolean): T | undefined {
    const value = this.has(name) ? this.#values[name] : undefined;
    if (value === undefined) return undefined;
    if (!test(value)) throw malformed(this.path, `has a ${JSON.stringify(name)} that is not ${form}`);
    return value as T;
  }
}

function malformed(
  path: string,
  problem: string,
  hint = 'see containers-registries.conf(5) for its form',
): PullError {
  return new PullError('option-malformed', `${path} ${problem}`, { hint });
}

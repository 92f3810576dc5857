import { PullError } from '../format/error.js';
import { type Reference, withoutUser } from '../format/reference.js';
import type { Registries, RegistryRule } from './registries-conf.js';

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

const HOST = /^(?:[\w.-]+|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?$/;
const REPOSITORY = /^[a-z0-9][\w.-]*(?:\/[a-z0-9][\w.-]*)*$/;

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
    throw new PullError(
      'option-malformed',
      `${rule.file} makes ${name} to ${JSON.stringify(withoutUser(moved))}`,
      {
        hint: 'a location is a host with or without port and path, like mirror.example:5000/cache',
      },
    );
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
  throw new PullError(
    'reference-malformed',
    `the short name ${JSON.stringify(name)} could be one of ${meant}`,
    {
      hint: 'write the one that is meant in full, or give it an alias in registries.conf',
    },
  );
}

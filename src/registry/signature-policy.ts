import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Reference } from '../format/reference.js';
import type { ConfigEnvironment } from './registries-conf.js';

const SYSTEM_POLICY = '/etc/containers/policy.json';

/** What a requirement of another type than `insecureAcceptAnything` asks for. */
const DEMANDS: Readonly<Record<string, string>> = {
  signedBy: 'asks for a signature',
  sigstoreSigned: 'asks for a sigstore signature',
  reject: 'rejects it',
};

/**
 * A sentence for the user when the policy.json that podman and skopeo obey asks more of this image than its digests
 * (containers-policy.json(5)): we check no signatures. Undefined when it asks for nothing, or there is none.
 */
export function signatureWarning(reference: Reference, env: ConfigEnvironment): string | undefined {
  const user = env['HOME'] ? [join(env['HOME'], '.config/containers/policy.json')] : [];
  for (const path of [...user, SYSTEM_POLICY]) {
    const text = readIfThere(path);
    if (text === undefined) continue;
    const demand = demandFor(reference, text);
    return demand === undefined ? undefined : `${path} ${demand}; zpull checks digests and no signatures`;
  }
  return undefined;
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined; // not there, or not for us: then it is not our policy
  }
}

function demandFor(reference: Reference, text: string): string | undefined {
  let policy: unknown;
  try {
    policy = JSON.parse(text);
  } catch {
    return 'is no JSON';
  }
  const docker = field(field(policy, 'transports'), 'docker');
  const requirements =
    scopesOf(reference)
      .map((scope) => field(docker, scope))
      .find((found) => found !== undefined) ?? field(policy, 'default');
  if (!Array.isArray(requirements)) return 'does not say what it asks of this image';
  const types = requirements.map((requirement) => field(requirement, 'type'));
  const demand = types.find((type) => type !== 'insecureAcceptAnything');
  if (demand === undefined) return undefined;
  const known = typeof demand === 'string' && Object.hasOwn(DEMANDS, demand) ? DEMANDS[demand] : undefined;
  return `${known ?? 'asks for more than digests'} for ${reference.host}/${reference.repository}`;
}

/** From the image itself over its namespaces, its host and the domains above it to all of this transport. */
function scopesOf({ host, repository, tag, digest }: Reference): string[] {
  const name = `${host}/${repository}`;
  const parts = name.split('/');
  const namespaces = parts.map((_, i) => parts.slice(0, parts.length - i).join('/'));
  const labels = host.split('.');
  const domains = labels.slice(1).map((_, i) => `*.${labels.slice(i + 1).join('.')}`);
  const itself = digest === undefined ? `${name}:${tag}` : `${name}@${digest}`;
  return [itself, ...namespaces, ...domains, ''];
}

function field(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
  return (value as Readonly<Record<string, unknown>>)[name];
}

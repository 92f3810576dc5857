import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import { MAX_CONFIGURATION_FILE_BYTES, readRegularFile } from '../files/read-input.js';
import { PullError } from '../format/error.js';
import { formatLocalImage, type LocalImage, type Reference } from '../format/reference.js';
import { isObject, type StrictParser, strictParser } from '../format/strict-json.js';

const SYSTEM_POLICY = '/etc/containers/policy.json';

/** The requirements that every image and no image meets; they have no other fields. */
const ACCEPT = 'insecureAcceptAnything';
const REJECT = 'reject';

/** The proofs that the other known types require. */
const DEMANDS: Readonly<Record<string, string>> = {
  signedBy: 'a signature',
  sigstoreSigned: 'a sigstore signature',
};

/** A key twice, or one in another case, is refused, as Go's programs do. */
const parsePolicy: StrictParser = strictParser({ default: null, transports: null });

export interface PolicyOptions {
  readonly env: NodeJS.ProcessEnv;
  /** Skips proofs that zpull cannot check. `reject` applies nevertheless. */
  readonly insecurePolicy: boolean;
  /** The system's file is below this directory. */
  readonly root?: string;
}

/**
 * Checks an image against the policy.json of podman and skopeo: the user's, else the system's. It
 * must meet all requirements of the most specific scope (containers-policy.json(5), "POLICY
 * REQUIREMENTS").
 * @returns warnings for the user
 * @throws PullError `policy-rejected`; `unsupported` for a proof that zpull cannot check, and when
 *   the system's file cannot be read; `option-malformed` for a file that violates the format
 */
export function checkPolicy(reference: Reference | LocalImage, options: PolicyOptions): string[] {
  const { env, insecurePolicy, root = '/' } = options;
  const system = join(root, SYSTEM_POLICY);
  const user = env['HOME'] ? [join(env['HOME'], '.config/containers/policy.json')] : [];
  const warnings: string[] = [];
  for (const path of [...user, system]) {
    const read = readRegularFile(path, MAX_CONFIGURATION_FILE_BYTES);
    if ('bytes' in read) return [...warnings, ...applyPolicy(reference, path, read.bytes, options)];
    if (read.kind === 'absent') continue;
    if (read.kind === 'unfit') throw malformed(path, read.problem);
    const sentence = `${path} ${read.problem}: what it asks of images is not known`;
    // HOME often belongs to another user, as with sudo.
    if (path === system && !insecurePolicy)
      throw new PullError('unsupported', sentence, { hint: UNREADABLE_HINT });
    warnings.push(`${sentence} and not obeyed`);
  }
  return warnings;
}

function applyPolicy(
  reference: Reference | LocalImage,
  path: string,
  bytes: Buffer,
  { insecurePolicy }: PolicyOptions,
): string[] {
  const types = requirementsFor(reference, path, bytes);
  const image =
    'transport' in reference ? formatLocalImage(reference) : `${reference.host}/${reference.repository}`;
  if (types.includes(REJECT)) {
    throw new PullError('policy-rejected', `${path} rejects ${image}`, {
      hint: 'choose an image that the policy accepts, or ask the administrator who maintains that file; --insecure-policy does not change this',
    });
  }
  const type = types.find((each) => each !== ACCEPT);
  if (type === undefined) return [];
  const known = Object.hasOwn(DEMANDS, type) ? DEMANDS[type] : undefined;
  const demand = known ?? `a proof of the unknown type ${JSON.stringify(type.slice(0, 100))}`;
  const sentence = `${path} asks for ${demand} of ${image}, which zpull cannot check`;
  if (insecurePolicy) return [`${sentence}: it checks digests only`];
  throw new PullError('unsupported', sentence, {
    hint: '--insecure-policy pulls it all the same, proven by its digests alone; podman and skopeo check signatures',
  });
}

/** The types of the requirements of the most specific scope of the transport, else the default. */
function requirementsFor(reference: Reference | LocalImage, path: string, bytes: Buffer): readonly string[] {
  const isLocal = 'transport' in reference;
  const { requirements, scopes } = readPolicy(path, bytes, isLocal ? reference.transport : 'docker');
  const scope = (isLocal ? pathScopesOf(reference.path) : scopesOf(reference)).find((each) =>
    scopes.has(each),
  );
  return scope === undefined ? requirements : scopes.get(scope)!;
}

/** The types of requirements: nothing else of them matters. */
interface Policy {
  /** The default. */
  readonly requirements: readonly string[];
  /** The requirements of the transport, by scope. */
  readonly scopes: ReadonlyMap<string, readonly string[]>;
}

/** Checks the full file: a typing error in a key must not fall back to a lax default. */
function readPolicy(path: string, bytes: Buffer, selected: string): Policy {
  let parsed: unknown;
  try {
    parsed = parsePolicy(bytes, path);
  } catch (error) {
    if (!(error instanceof PullError)) throw error;
    throw new PullError('option-malformed', error.message, { hint: POLICY_HINT, cause: error });
  }
  const policy = fieldsOf(path, parsed, 'the policy');
  const unknown = Object.keys(policy).find((key) => key !== 'default' && key !== 'transports');
  if (unknown !== undefined) throw malformed(path, `has the unknown key ${quote(unknown)}`);
  const transports = Object.entries(fieldsOf(path, policy['transports'] ?? {}, '"transports"'));
  const scopes = new Map<string, readonly string[]>();
  for (const [transport, entries] of transports) {
    for (const [scope, list] of Object.entries(fieldsOf(path, entries, `transport ${quote(transport)}`))) {
      const requirements = requirementsOf(path, list, `scope ${quote(scope)} of ${quote(transport)}`);
      if (transport === selected) scopes.set(scope, requirements);
    }
  }
  return { requirements: requirementsOf(path, policy['default'], '"default"'), scopes };
}

function requirementsOf(path: string, value: unknown, where: string): string[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw malformed(path, `has no list of requirements in ${where}`);
  }
  return value.map((item: unknown) => {
    const requirement = fieldsOf(path, item, `a requirement in ${where}`);
    const { type } = requirement;
    if (typeof type !== 'string') throw malformed(path, `has a requirement without a type in ${where}`);
    const hasOtherFields = Object.keys(requirement).length > 1;
    if (hasOtherFields && (type === ACCEPT || type === REJECT)) {
      throw malformed(path, `has a requirement of type ${quote(type)} with other fields in ${where}`);
    }
    return type;
  });
}

function fieldsOf(path: string, value: unknown, where: string): Readonly<Record<string, unknown>> {
  if (isObject(value)) return value;
  throw malformed(path, `has something that is no object where ${where} should be`);
}

const UNREADABLE_HINT =
  'make the file and the directories around it readable, as podman and skopeo need it too; --insecure-policy pulls without it';

const POLICY_HINT =
  'correct the file, see containers-policy.json(5) for its form; podman and skopeo refuse it as well';

function malformed(path: string, problem: string): PullError {
  return new PullError('option-malformed', `${path} ${problem}`, { hint: POLICY_HINT });
}

function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}

/**
 * The scopes of an image, most specific first: itself, its namespaces, its host, the domains above
 * that, and the transport. A scope that begins with an asterisk has no port (containers/image,
 * DockerReferenceNamespaces).
 */
function scopesOf({ host, repository, tag, digest }: Reference): string[] {
  const name = `${host}/${repository}`;
  const parts = name.split('/');
  const namespaces = parts.map((_, i) => parts.slice(0, parts.length - i).join('/'));
  const labels = host.replace(/:.*/s, '').split('.');
  const domains = labels.slice(1).map((_, i) => `*.${labels.slice(i + 1).join('.')}`);
  const itself = digest === undefined ? `${name}:${tag}` : `${name}@${digest}`;
  return [itself, ...namespaces, ...domains, ''];
}

/**
 * The scopes of a layout or archive, most specific first: itself, the directories above it except
 * the root, and the transport. As in containers/image (oci/layout), symbolic links are resolved: a
 * link to a layout has the layout's scopes.
 */
function pathScopesOf(path: string): string[] {
  const steps = withoutLinks(path)
    .split('/')
    .filter((step) => step !== '');
  return [...steps.map((_, i) => `/${steps.slice(0, steps.length - i).join('/')}`), ''];
}

function withoutLinks(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // opening the layout fails as well, with an error that says why
  }
}

import { resolve } from 'node:path';
import { formatLocalImage, type LocalImage, parseLocalImage } from '../format/local-image.js';
import { formatReference, parseReference, type Reference } from '../format/reference.js';
import type { RetryPolicy, WaitBudget } from '../registry/backoff.js';
import { checkAuthFile, createCredentials } from '../registry/credentials.js';
import { endpointsOf, expandShortName } from '../registry/endpoints.js';
import { createMirroredSession, type MirroredSession } from '../registry/mirrored-session.js';
import type { Registries } from '../registry/registries-conf.js';
import { checkPolicy } from '../registry/signature-policy.js';
import type { TokenCache } from '../registry/token.js';
import { networkEnvironment } from '../registry/transport.js';
import { createLocalSession } from './local-session.js';
import type { PullEvent } from './pull-events.js';
import type { Settings } from './pull-options.js';

export const USER_AGENT = 'zpull';

/** An image in a registry, or in an OCI layout on this machine. */
export interface ImageSource {
  /** The full reference. */
  readonly image: string;
  /** The tag or digest to request; empty for the only image of a layout. */
  readonly name: string;
  readonly location: Reference | LocalImage;
  readonly registries: Registries | undefined;
}

/**
 * Parses a reference, with short names expanded as `registries` says.
 * @throws PullError `reference-malformed`
 */
export function parseSource(reference: string, registries: Registries | undefined): ImageSource {
  const local = parseLocalImage(reference, (path) => resolve(path));
  if (local !== undefined) {
    const name = local.digest ?? local.tag ?? '';
    return { image: formatLocalImage(local), name, location: local, registries };
  }
  const remote = parseReference(reference, (name) => expandShortName(name, registries));
  const name = remote.digest ?? remote.tag ?? 'latest';
  return { image: formatReference(remote), name, location: remote, registries };
}

export function isLocal({ location }: ImageSource): boolean {
  return 'transport' in location;
}

/** What requests to a source share. */
export interface SourceOptions {
  readonly settings: Settings;
  readonly retryPolicy: RetryPolicy;
  readonly waits: WaitBudget;
  readonly tokens: TokenCache;
  readonly signal: AbortSignal | undefined;
  readonly emit: (event: PullEvent) => void;
}

/**
 * A session with the registry of an image and its mirrors, or with a local layout. Sends nothing
 * yet.
 */
export function createSession(
  { location, registries }: ImageSource,
  options: SourceOptions,
): MirroredSession {
  if ('transport' in location) return createLocalSession(location);
  const { retryPolicy, waits, tokens, signal, emit } = options;
  const { plainHttp, tlsVerify, certDir, connectTimeoutMs, debug } = options.settings;
  const { credentials: given, authfile, idleTimeoutMs, answerTimeoutMs, allowHttpStorage } = options.settings;
  return createMirroredSession({
    endpoints: endpointsOf(location, registries),
    credentialsFor: ({ host, repository }, isOwn) =>
      createCredentials({
        host,
        repository,
        given: isOwn ? given : undefined,
        authfile,
        env: process.env,
        warn: (message) => emit({ event: 'warning', message }),
        signal,
      }),
    ...(certDir === undefined ? {} : { certDir }),
    environment: networkEnvironment(process.env),
    plainHttp,
    tlsVerify,
    allowHttpStorage,
    connectTimeoutMs,
    idleTimeoutMs,
    answerTimeoutMs,
    retryPolicy,
    waits,
    tokens,
    userAgent: USER_AGENT,
    ...(debug && { debug: (line: string) => emit({ event: 'debug', line }) }),
  });
}

/**
 * Checks that the signature policy accepts the image and that the auth file can be read, and emits
 * the policy's warnings.
 * @throws PullError as `checkPolicy` and `checkAuthFile`
 */
export async function checkAccess(source: ImageSource, options: SourceOptions): Promise<void> {
  const { settings, signal, emit } = options;
  const { insecurePolicy, authfile } = settings;
  for (const message of checkPolicy(source.location, { env: process.env, insecurePolicy })) {
    emit({ event: 'warning', message });
  }
  if (!isLocal(source)) await checkAuthFile({ authfile, env: process.env, signal });
}

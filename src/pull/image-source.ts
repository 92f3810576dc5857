import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { damagedHint } from '../files/layout-error.js';
import { type Digest, digestOfBytes, isDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { MAX_CONFIG_BYTES } from '../format/image-config.js';
import { formatLocalImage, type LocalImage, parseLocalImage } from '../format/local-image.js';
import { leavesSizeOut, MAX_MANIFEST_BYTES } from '../format/manifest.js';
import { formatReference, parseReference, type Reference } from '../format/reference.js';
import { listSome } from '../format/text.js';
import type { RetryPolicy, WaitBudget } from '../registry/backoff.js';
import { checkAuthFile, createCredentials } from '../registry/credentials.js';
import { endpointsOf, expandShortName } from '../registry/endpoints.js';
import { createMirroredSession, type MirroredSession } from '../registry/mirrored-session.js';
import type { Registries } from '../registry/registries-conf.js';
import { checkPolicy } from '../registry/signature-policy.js';
import type { TokenCache } from '../registry/token.js';
import { networkEnvironment } from '../registry/transport.js';
import { type LayoutFiles, openLayoutFiles } from './layout-files.js';
import { type NamedManifest, namedIn } from './layout-index.js';
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

/** A layout has no host; its blobs have file URLs. */
const NO_HOST = { transport: { host: '', tlsVerify: true, environment: {} }, repository: '' };

/** A session that reads from an OCI layout on this machine, without network and credentials. */
export function createLocalSession(image: LocalImage): MirroredSession {
  let opened: Promise<LayoutFiles> | undefined;
  let files: LayoutFiles | undefined;
  const open = async (): Promise<LayoutFiles> => {
    opened ??= openLayoutFiles(image);
    files = await opened;
    return files;
  };
  return {
    endpoints: [NO_HOST],
    async open() {
      await open();
    },
    async getManifest(name) {
      const layout = await open();
      const { digest, mediaType } = isDigest(name)
        ? { digest: name, mediaType: undefined }
        : choose(layout, name, namedIn(layout.index(), layout.indexPath));
      return { bytes: verified(layout, digest, MAX_MANIFEST_BYTES), mediaType };
    },
    headManifest: async () => undefined,
    async getBlob(digest, sizeBytes) {
      const bytes = verified(await open(), digest, MAX_CONFIG_BYTES);
      if (leavesSizeOut({ digest, sizeBytes }) || bytes.length === sizeBytes) return bytes;
      throw new PullError('metadata-malformed', `blob ${digest} has ${bytes.length} bytes, not ${sizeBytes}`);
    },
    blobUrl(digest) {
      if (files === undefined) throw new PullError('internal', `${image.path} was not opened`);
      return files.blobUrl(digest);
    },
    access: async () => ({ origin: '', value: undefined, expiresAtMs: Number.POSITIVE_INFINITY }),
    close() {},
  };
}

/** Reads and verifies a small blob. @throws PullError `digest-mismatch`; as `LayoutFiles.read` */
function verified(layout: LayoutFiles, digest: Digest, maxBytes: number): Buffer {
  const bytes = layout.read(digest, maxBytes);
  const actual = digestOfBytes(createHash('sha256').update(bytes).digest());
  if (actual === digest) return bytes;
  throw new PullError(
    'digest-mismatch',
    `${layout.path} has other bytes for ${digest}: their digest is ${actual}`,
    { hint: damagedHint(layout.path) },
  );
}

/**
 * The image with this tag, or the only image for an empty one.
 * @throws PullError `image-not-found`, `reference-malformed`
 */
function choose({ path }: LayoutFiles, tag: string, entries: readonly NamedManifest[]): NamedManifest {
  const named = tag === '' ? entries : entries.filter((entry) => entry.tag === tag);
  const [first, ...others] = named;
  if (first !== undefined && others.every(({ digest }) => digest === first.digest)) return first;
  const tags = [...new Set(entries.flatMap((entry) => entry.tag ?? []))].sort();
  const hint =
    tags.length === 0
      ? 'name it by its digest: zpull takes oci:DIR@sha256:…'
      : `its tags are ${listSome(tags)}`;
  if (first === undefined) {
    const message = tag === '' ? `${path} has no image` : `${path} has no image with the tag ${tag}`;
    throw new PullError('image-not-found', message, { hint });
  }
  const message =
    tag === ''
      ? `${path} has ${entries.length} images, and no tag says which`
      : `${path} has several images with the tag ${tag}`;
  throw new PullError('reference-malformed', message, { hint });
}

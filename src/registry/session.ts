import { createHash } from 'node:crypto';
import { type Digest, digestOfBytes, isDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { MAX_CONFIG_BYTES } from '../format/image-config.js';
import { leavesSizeOut, MANIFEST_TYPES, MAX_MANIFEST_BYTES, SCHEMA_1_TYPES } from '../format/manifest.js';
import { type Authorizer, createAuthorizer } from './authorizer.js';
import {
  createContext,
  currentOrigin,
  exchangeWithRetries,
  type ServedResponse,
  type SessionContext,
  type SessionOptions,
  type SmallRequest,
} from './exchange.js';
import type { HttpResponse } from './http-client.js';
import { nameOf, type Requested, refusal, storageRefusal, webPageError } from './refusal.js';
import { MAX_DIGEST_TRIES } from './retry-rules.js';
import { collectTags, MAX_TAGS_PAGE_BYTES } from './tags.js';

/** Type and subtype have at most 127 characters each (RFC 6838, 4.2). */
const MAX_MEDIA_TYPE_LENGTH = 255;

interface Manifest {
  readonly bytes: Buffer;
  /** The Content-Type without parameters, in lower case, if it can be one. */
  readonly mediaType: string | undefined;
}

/** One repository of one registry, for the main thread's requests. */
export interface RegistrySession {
  /** `http://…` or `https://…`, as the first request found out. */
  readonly origin: string;
  /**
   * The manifest of a tag or digest, at most 4 MiB; verified when requested by digest.
   * @throws PullError `image-not-found`, `unauthorized`, `network-hopeless`, `redirect-refused`,
   *   `answer-unexpected`, `digest-mismatch`, `metadata-malformed` (too long)
   */
  getManifest(reference: string): Promise<Manifest>;
  /**
   * The digest that the registry states for a tag; undefined when it states none. It is not proven:
   * it may select a cached manifest, and nothing more. Docker Hub does not count a HEAD as a pull.
   * @throws PullError `unauthorized`, `network-hopeless`, `redirect-refused`
   */
  headManifest(tag: string): Promise<Digest | undefined>;
  /**
   * A small blob (a config), complete and verified. A size of 0 that cannot be true means that the
   * manifest states none.
   * @throws PullError as `getManifest`, `blob-not-found`; `metadata-malformed` when `sizeBytes` is
   *   above MAX_CONFIG_BYTES
   */
  getBlob(digest: Digest, sizeBytes: number): Promise<Buffer>;
  /**
   * The tags of the repository, all pages, in the registry's order.
   * @throws PullError `image-not-found`, `unauthorized`, `network-hopeless`, `redirect-refused`,
   *   `answer-unexpected`, `metadata-malformed`
   */
  getTags(): Promise<string[]>;
  /** Where workers fetch a blob. */
  blobUrl(digest: Digest): string;
  /** The current Authorization value; see TokenKeeper. */
  authorization(stale?: string): Promise<string | undefined>;
  /** When (Unix time) that value is to be renewed. */
  readonly authorizationExpiresAtMs: number;
  /**
   * Finds out the origin where only a response can tell, and nothing was requested yet.
   * @throws PullError as `getManifest`
   */
  open(): Promise<void>;
  /** Closes connections while no request is in flight; the next one opens a new one. */
  disconnect(): void;
  /** Closes idle connections, ends waits and a running credential helper. */
  close(): void;
}

/** A session; nothing is sent before the first call. */
export function createRegistrySession(options: SessionOptions): RegistrySession {
  const context = createContext(options);
  const authorizer = createAuthorizer(context);
  const { repository } = options;
  const base = `/v2/${repository}`;

  return {
    get origin() {
      return currentOrigin(context).origin;
    },
    blobUrl: (digest) => `${currentOrigin(context).origin}${base}/blobs/${digest}`,
    authorization: (stale) => authorizer.authorization(stale),
    get authorizationExpiresAtMs() {
      return authorizer.expiresAtMs;
    },
    async open() {
      // A registry that requires a token is sent a request for one anyway.
      if (context.origins.length > 1) await authorizer.authorization('');
    },
    disconnect: () => context.client.close(),
    close() {
      context.client.close();
      context.closing.abort();
      options.credentials?.close();
    },

    getManifest: (reference) => getManifest(context, authorizer, reference),
    getBlob: (digest, sizeBytes) => getBlob(context, authorizer, digest, sizeBytes),
    getTags: () => getTags(context, authorizer),
    async headManifest(tag) {
      const path = `${base}/manifests/${tag}`;
      const request = { path, accept: MANIFEST_TYPES, maxBytes: 0, method: 'HEAD' as const };
      const { response } = await requestAuthorized(context, authorizer, request);
      const digest = response.headers['docker-content-digest'];
      return response.status === 200 && typeof digest === 'string' && isDigest(digest) ? digest : undefined;
    },
  };
}

interface RegistryRequest extends Omit<SmallRequest, 'headers' | 'body'> {
  readonly path: string;
  /** Each is sent as a line of its own: some registries do not split a list at its commas. */
  readonly accept: readonly string[];
}

async function getManifest(
  context: SessionContext,
  authorizer: Authorizer,
  reference: string,
): Promise<Manifest> {
  const { host, repository } = context.options;
  const requested: Requested = { host, repository, name: reference, kind: 'manifest' };
  const path = `/v2/${repository}/manifests/${reference}`;
  const request = { path, maxBytes: MAX_MANIFEST_BYTES, isProven: isDigest(reference) };
  const requestType = (accept: readonly string[]) =>
    requestAuthorized(context, authorizer, { ...request, accept });
  const response = await requestVerified(requested, async () => {
    let served = await requestType(MANIFEST_TYPES);
    if (served.response.status === 404 || served.response.status === 406) {
      // The registry may have a manifest of schema 1 only.
      const old = await requestType(SCHEMA_1_TYPES);
      if (isSuccess(old.response.status)) served = old;
    }
    requireSuccess(served, authorizer, requested);
    if (!served.response.tooLong) return served;
    throw new PullError('metadata-malformed', `the manifest ${reference} is larger than 4 MiB`);
  });
  const type = response.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
  const isType = type !== undefined && type.length <= MAX_MEDIA_TYPE_LENGTH;
  return { bytes: response.body, mediaType: isType ? type : undefined };
}

async function getBlob(
  context: SessionContext,
  authorizer: Authorizer,
  digest: Digest,
  sizeBytes: number,
): Promise<Buffer> {
  const { host, repository } = context.options;
  const malformed = (what: string) => new PullError('metadata-malformed', `blob ${digest} ${what}`);
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > MAX_CONFIG_BYTES) {
    throw malformed(`is said to have ${sizeBytes} bytes, which is not between 0 and ${MAX_CONFIG_BYTES}`);
  }
  const isUnknown = leavesSizeOut({ digest, sizeBytes });
  const requested: Requested = { host, repository, name: digest, kind: 'blob' };
  const path = `/v2/${repository}/blobs/${digest}`;
  const maxBytes = isUnknown ? MAX_CONFIG_BYTES : sizeBytes;
  const request = { path, accept: ['*/*'], maxBytes, isProven: true };
  const { body } = await requestVerified(requested, async () =>
    requireSuccess(await requestAuthorized(context, authorizer, request), authorizer, requested),
  );
  // The digest is right and the length is not: the manifest states a wrong size.
  if (!isUnknown && body.length !== sizeBytes) throw malformed(`has ${body.length} bytes, not ${sizeBytes}`);
  return body;
}

async function getTags(context: SessionContext, authorizer: Authorizer): Promise<string[]> {
  const { host, repository } = context.options;
  const requested: Requested = { host, repository, name: '', kind: 'tags' };
  return collectTags(host, repository, async (query) => {
    const path = `/v2/${repository}/tags/list?${query}`;
    const request = { path, accept: ['application/json'], maxBytes: MAX_TAGS_PAGE_BYTES };
    return requestVerified(requested, async () =>
      requireSuccess(await requestAuthorized(context, authorizer, request), authorizer, requested),
    );
  });
}

function isSuccess(status: number): boolean {
  return status >= 200 && status < 300;
}

/** @throws PullError for a response that is not 2xx, with the reason the server gave */
function requireSuccess(
  served: ServedResponse,
  authorizer: Authorizer,
  requested: Requested,
): ServedResponse {
  const { response, host, isCrossOrigin } = served;
  const { status, body, headers } = response;
  if (isSuccess(status)) return served;
  if (isCrossOrigin) throw storageRefusal(status, requested, body, host);
  throw refusal(status, requested, body, authorizer.tried(), headers);
}

/**
 * The response, whatever its status, to a request with the best Authorization there is. A response
 * from another origin is final: a redirect leads to storage, which must not be able to ask for
 * credentials.
 */
async function requestAuthorized(
  context: SessionContext,
  authorizer: Authorizer,
  { path, accept, ...request }: RegistryRequest,
): Promise<ServedResponse> {
  let authorization = await authorizer.authorization();
  for (let renewed = false; ; renewed = true) {
    const headers = { accept: [...accept], ...(authorization !== undefined && { authorization }) };
    const served = await exchangeWithRetries(context, path, { ...request, headers });
    const { response, isCrossOrigin, action } = served;
    if (isCrossOrigin || action === 'accept') return served;
    const refused = authorization;
    const isChallenged = action === 'renew-token';
    if (isChallenged) authorizer.challenged(response);
    const mayRenew = !renewed || authorizer.isInherited;
    if (mayRenew && (isChallenged || (await mayBeHidden(context, response, refused)))) {
      authorization = await authorizer.authorization(refused ?? '');
    }
    if (authorization === refused) return served;
    const { debug, host } = context.options;
    debug?.(`${host} answers ${response.status}; asking again with another Authorization`);
  }
}

/** Registries hide private repositories from anonymous requests by 404 or 403. */
async function mayBeHidden(
  { options }: SessionContext,
  { status }: HttpResponse,
  authorization: string | undefined,
): Promise<boolean> {
  if ((status !== 403 && status !== 404) || authorization !== undefined) return false;
  return (await options.credentials?.mayHave()) === true;
}

/**
 * The response whose body has the requested digest, if one was requested; sent for once more when
 * it has not.
 * @throws PullError `digest-mismatch`; `answer-unexpected` for a web page
 */
async function requestVerified(
  requested: Requested,
  request: () => Promise<ServedResponse>,
): Promise<HttpResponse> {
  const { host: registry, kind, name } = requested;
  for (let tries = 1; ; tries++) {
    const { response, host } = await request();
    const { body, tooLong } = response;
    const computed = isDigest(name) ? digestOfBytes(createHash('sha256').update(body).digest()) : name;
    const isProven = isDigest(name) && computed === name && !tooLong;
    const page = isProven ? undefined : webPageError(host, nameOf(requested), body);
    if (page !== undefined) throw page;
    if (isProven || !isDigest(name)) return response;
    if (tries < MAX_DIGEST_TRIES) continue;
    const what = tooLong ? 'more bytes than it should have' : `bytes whose digest is ${computed}`;
    throw new PullError('digest-mismatch', `${registry} answers for ${kind} ${name} with ${what}`, {
      hint: 'pull again later, or from another registry: what this one or a proxy before it holds is damaged',
    });
  }
}

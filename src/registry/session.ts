import { createHash } from 'node:crypto';
import { type Digest, digestOfBytes, isDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { MAX_CONFIG_BYTES } from '../format/image-config.js';
import { leavesSizeOut, MANIFEST_TYPES, MAX_MANIFEST_BYTES, SCHEMA_1_TYPES } from '../format/manifest.js';
import {
  type Answered,
  askPatiently,
  type Context,
  createContext,
  currentOrigin,
  type SessionOptions,
} from './ask.js';
import { type Authorizer, createAuthorizer } from './authorizer.js';
import type { Answer } from './http-client.js';
import { refusal, storageRefusal, type Wanted, webPageError } from './refusal.js';

/** A digest mismatch is asked for once more: a proxy may have kept a broken copy. */
const TRIES_FOR_DIGEST = 2;

/** Type and subtype have at most 127 characters each (RFC 6838, 4.2): what is longer is no media type, and messages repeat it. */
const MAX_MEDIA_TYPE_LENGTH = 255;

interface Manifest {
  readonly bytes: Buffer;
  /** The Content-Type without parameters, in lower case, if it can be one. */
  readonly mediaType: string | undefined;
}

/** One repository of one registry, as the main thread asks it. */
export interface RegistrySession {
  /** `http://…` or `https://…`, as found out by the first request. */
  readonly origin: string;
  /**
   * The manifest of a tag or digest, at most 4 MiB; verified when asked for by digest.
   * @throws PullError `image-not-found`, `unauthorized`, `network-hopeless`, `redirect-refused`,
   *   `answer-unexpected`, `digest-mismatch`, `metadata-malformed` (too long)
   */
  getManifest(reference: string): Promise<Manifest>;
  /**
   * The digest that the registry says a tag has; undefined when it does not say, for whatever reason. It is not proven:
   * it may select a manifest that is at hand already, and nothing more. Docker Hub counts no HEAD as a pull.
   * @throws PullError `unauthorized`, `network-hopeless`, `redirect-refused`
   */
  headManifest(tag: string): Promise<Digest | undefined>;
  /**
   * A small blob (a config), whole and verified. A size of 0 that cannot be means that nobody states it.
   * @throws PullError as `getManifest`, `blob-not-found`; `metadata-malformed` when `sizeBytes` is above MAX_CONFIG_BYTES
   */
  getBlob(digest: Digest, sizeBytes: number): Promise<Buffer>;
  /** Where workers fetch a blob. */
  blobUrl(digest: Digest): string;
  /** The present Authorization value; see TokenKeeper. */
  authorization(stale?: string): Promise<string | undefined>;
  /** From when on (Unix time) that value is to be renewed. */
  readonly authorizationExpiresAtMs: number;
  /** Finds out the origin where only an answer can tell, and no question was asked. @throws PullError as `getManifest` */
  open(): Promise<void>;
  /** Closes idle connections, ends waits and a credential helper that runs. */
  close(): void;
}

/** A session; nothing is sent before the first question. */
export function createRegistrySession(options: SessionOptions): RegistrySession {
  const context = createContext(options);
  const authorizer = createAuthorizer(context);
  const base = `/v2/${options.repository}`;
  const describe = (kind: Wanted['kind'], name: string): Wanted => ({
    host: options.host,
    repository: options.repository,
    name,
    kind,
  });

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
      // Whoever is let in only with a token will be asked for one anyway.
      if (context.origins.length > 1) await authorizer.authorization('');
    },
    close() {
      context.client.close();
      context.ending.abort();
      options.credentials?.close();
    },

    async getManifest(reference) {
      const wanted = describe('manifest', reference);
      const path = `${base}/manifests/${reference}`;
      const answer = await askVerified(reference, wanted, async () => {
        const question = { path, wanted, maxBytes: MAX_MANIFEST_BYTES, isProven: isDigest(reference) };
        const answered = await askForManifest(context, authorizer, question);
        if (!answered.answer.tooLong) return answered;
        throw new PullError('metadata-malformed', `the manifest ${reference} is larger than 4 MiB`);
      });
      const type = answer.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
      const isType = type !== undefined && type.length <= MAX_MEDIA_TYPE_LENGTH;
      return { bytes: answer.body, mediaType: isType ? type : undefined };
    },

    async headManifest(tag) {
      const path = `${base}/manifests/${tag}`;
      const question = { path, accept: [...MANIFEST_TYPES], maxBytes: 0, method: 'HEAD' as const };
      const { answer } = await askAuthorized(context, authorizer, question);
      const { status, headers } = answer;
      const digest = headers['docker-content-digest'];
      return status === 200 && typeof digest === 'string' && isDigest(digest) ? digest : undefined;
    },

    async getBlob(digest, sizeBytes) {
      const malformed = (what: string) => new PullError('metadata-malformed', `blob ${digest} ${what}`);
      if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > MAX_CONFIG_BYTES) {
        throw malformed(`is said to have ${sizeBytes} bytes, which is not between 0 and ${MAX_CONFIG_BYTES}`);
      }
      const isUnknown = leavesSizeOut({ digest, sizeBytes });
      const wanted = describe('blob', digest);
      const path = `${base}/blobs/${digest}`;
      const maxBytes = isUnknown ? MAX_CONFIG_BYTES : sizeBytes;
      const question = { path, wanted, accept: ['*/*'], maxBytes, isProven: true };
      const { body } = await askVerified(digest, wanted, () => ask(context, authorizer, question));
      // Bytes with the right digest and another length: then the manifest lies about the size.
      if (!isUnknown && body.length !== sizeBytes)
        throw malformed(`has ${body.length} bytes, not ${sizeBytes}`);
      return body;
    },
  };
}

interface Question {
  readonly path: string;
  /** A line each. */
  readonly accept: string[];
  readonly maxBytes: number;
  readonly method?: 'HEAD';
  /** It asks by digest. */
  readonly isProven?: boolean;
}

type WantedQuestion = Question & { readonly wanted: Wanted };

/** A manifest; one of schema 1 where the registry has no other. */
async function askForManifest(
  context: Context,
  authorizer: Authorizer,
  question: Omit<WantedQuestion, 'accept'>,
): Promise<Answered> {
  const wanted = { ...question, accept: [...MANIFEST_TYPES] };
  const answered = await askAuthorized(context, authorizer, wanted);
  const { status } = answered.answer;
  if (status === 404 || status === 406) {
    const old = await askAuthorized(context, authorizer, { ...question, accept: [...SCHEMA_1_TYPES] });
    if (isGood(old.answer.status)) return good(old, authorizer, wanted);
  }
  return good(answered, authorizer, wanted);
}

/** A 2xx answer of the registry, after tokens, redirects, waits and misses. */
async function ask(context: Context, authorizer: Authorizer, question: WantedQuestion): Promise<Answered> {
  return good(await askAuthorized(context, authorizer, question), authorizer, question);
}

function isGood(status: number): boolean {
  return status >= 200 && status < 300;
}

/** An answer that is one. @throws PullError that says what was answered instead */
function good(answered: Answered, authorizer: Authorizer, question: WantedQuestion): Answered {
  const { answer, host, isElsewhere } = answered;
  const { status, body } = answer;
  if (isGood(status)) return answered;
  if (isElsewhere) throw storageRefusal(status, question.wanted, body, host);
  throw refusal(status, question.wanted, body, authorizer.tried());
}

/**
 * The answer, whatever its status, to a request that is authorized as far as can be. What others than the registry say is final: a
 * redirect leads to storage, which must not be able to ask for credentials.
 */
async function askAuthorized(
  context: Context,
  authorizer: Authorizer,
  { path, accept, maxBytes, ...asking }: Question,
): Promise<Answered> {
  let authorization = await authorizer.authorization();
  for (let renewed = false; ; renewed = true) {
    const headers = { accept, ...(authorization !== undefined && { authorization }) };
    const answered = await askPatiently(context, path, headers, maxBytes, asking);
    const { answer, isElsewhere, next } = answered;
    if (isElsewhere || next === 'take') return answered;
    const refused = authorization;
    const isChallenged = next === 'renew-token';
    if (isChallenged) authorizer.challenged(answer);
    const mayRenew = !renewed || authorizer.isInherited;
    if (mayRenew && (isChallenged || (await mayBeHidden(context, answer, refused)))) {
      authorization = await authorizer.authorization(refused ?? '');
    }
    if (authorization === refused) return answered;
    const { debug, host } = context.options;
    debug?.(`${host} answers ${answer.status}; asking again with another Authorization`);
  }
}

/**
 * Whether another Authorization may change the answer: a registry that is not told who asks says of what is private
 * that it does not have it, or forbids it.
 */
async function mayBeHidden(
  { options }: Context,
  { status }: Answer,
  authorization: string | undefined,
): Promise<boolean> {
  if ((status !== 403 && status !== 404) || authorization !== undefined) return false;
  return (await options.credentials?.mayHave()) === true;
}

/**
 * The answer whose body has the digest asked for, if one was; asked once more when it has not.
 * @throws PullError `digest-mismatch`; `answer-unexpected` for a web page
 */
async function askVerified(name: string, wanted: Wanted, ask: () => Promise<Answered>): Promise<Answer> {
  for (let tries = 1; ; tries++) {
    const { answer, host } = await ask();
    const computed = isDigest(name) ? digestOfBytes(createHash('sha256').update(answer.body).digest()) : name;
    const isRight = computed === name && !(isDigest(name) && answer.tooLong);
    const page =
      isRight && isDigest(name) ? undefined : webPageError(host, `the ${wanted.kind} ${name}`, answer.body);
    if (page !== undefined) throw page;
    if (isRight) return answer;
    if (tries < TRIES_FOR_DIGEST) continue;
    const what = answer.tooLong ? 'more bytes than it should have' : `bytes whose digest is ${computed}`;
    throw new PullError('digest-mismatch', `${wanted.host} answers for ${wanted.kind} ${name} with ${what}`, {
      hint: 'what the registry or a proxy before it holds is damaged',
    });
  }
}

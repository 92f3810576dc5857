import { createHash } from 'node:crypto';
import { type Digest, isDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import {
  askPatiently,
  type Context,
  createContext,
  currentOrigin,
  exchange,
  networkMiss,
  type SessionOptions,
} from './ask.js';
import { parseChallenges } from './challenge.js';
import type { Answer } from './http-client.js';
import { firstErrorMessage, refusal, type Wanted } from './refusal.js';
import {
  askThreeTimes,
  createTokenKeeper,
  parseToken,
  type Token,
  type TokenKeeper,
  tokenUrl,
} from './token.js';

/** The distribution-spec asks registries to take manifests of 4 MiB; larger ones are refused by most. */
const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

/** Image configs have a few KiB, at most some hundred; above 8 MiB it is no config. */
const MAX_CONFIG_BYTES = 8 * 1024 * 1024;

const MAX_TOKEN_ANSWER_BYTES = 1024 * 1024;

/** A digest mismatch is asked for once more: a proxy may have kept a broken copy. */
const TRIES_FOR_DIGEST = 2;

/** Schema 1 is there so that the registry says what it has; it is refused later, by its name. */
const MANIFEST_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.v1+prettyjws',
  'application/vnd.docker.distribution.manifest.v1+json',
].join(', ');

interface Manifest {
  readonly bytes: Buffer;
  /** The Content-Type without parameters, in lower case. */
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
   * A small blob (a config), whole and verified.
   * @throws PullError as `getManifest`, `blob-not-found`; `metadata-malformed` when `sizeBytes` is above 8 MiB
   */
  getBlob(digest: Digest, sizeBytes: number): Promise<Buffer>;
  /** Where workers fetch a blob. */
  blobUrl(digest: Digest): string;
  /** The present Authorization value; see TokenKeeper. */
  authorization(stale?: string): Promise<string | undefined>;
  /** Closes idle connections. */
  close(): void;
}

/** A session; nothing is sent before the first question. */
export function createRegistrySession(options: SessionOptions): RegistrySession {
  const context = createContext(options);
  const { ask, tokens } = createQuestions(context);
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
    authorization: (stale) => tokens.authorization(stale),
    close: () => context.client.close(),

    async getManifest(reference) {
      const wanted = describe('manifest', reference);
      const path = `${base}/manifests/${reference}`;
      const answer = await askVerified(reference, wanted, async () => {
        const answer = await ask(path, wanted, MANIFEST_TYPES, MAX_MANIFEST_BYTES);
        if (!answer.tooLong) return answer;
        throw new PullError('metadata-malformed', `the manifest ${reference} is larger than 4 MiB`);
      });
      const type = answer.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
      return { bytes: answer.body, mediaType: type };
    },

    async getBlob(digest, sizeBytes) {
      const malformed = (what: string) => new PullError('metadata-malformed', `blob ${digest} ${what}`);
      if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > MAX_CONFIG_BYTES) {
        throw malformed(`is said to have ${sizeBytes} bytes, which is not between 0 and 8 MiB`);
      }
      const wanted = describe('blob', digest);
      const path = `${base}/blobs/${digest}`;
      const { body } = await askVerified(digest, wanted, () => ask(path, wanted, '*/*', sizeBytes));
      // Bytes with the right digest and another length: then the manifest lies about the size.
      if (body.length !== sizeBytes) throw malformed(`has ${body.length} bytes, not ${sizeBytes}`);
      return body;
    },
  };
}

interface Questions {
  /** A 2xx answer of the registry, after tokens, redirects, waits and misses. */
  ask(path: string, wanted: Wanted, accept: string, maxBytes: number): Promise<Answer>;
  readonly tokens: TokenKeeper;
}

/** Questions with a token where the registry wants one; which token server that is, its challenge says. */
function createQuestions(context: Context): Questions {
  const { repository } = context.options;
  let tokenSource: URL | undefined;

  const tokens = createTokenKeeper(async () => {
    tokenSource ??= await probeTokenSource(context);
    return tokenSource === undefined ? undefined : await fetchToken(context, tokenSource);
  }, Date.now);

  async function ask(path: string, wanted: Wanted, accept: string, maxBytes: number): Promise<Answer> {
    let authorization = await tokens.authorization();
    let renewed = false;
    for (;;) {
      const headers = { accept, ...authorizationHeader(authorization) };
      const answer = await askPatiently(context, path, headers, maxBytes);
      if (answer.status >= 200 && answer.status < 300) return answer;
      if (answer.status !== 401 || renewed) throw refusal(answer.status, wanted, answer.body);
      tokenSource = tokenUrl(challengesOf(answer), currentOrigin(context), repository);
      if (tokenSource === undefined) throw refusal(401, wanted, answer.body);
      authorization = await tokens.authorization(authorization ?? '');
      renewed = true;
    }
  }
  return { ask, tokens };
}

function authorizationHeader(value: string | undefined): Record<string, string> {
  return value === undefined ? {} : { authorization: value };
}

function challengesOf(answer: Answer): ReturnType<typeof parseChallenges> {
  return parseChallenges(answer.headers['www-authenticate']);
}

/** The answer whose body has the digest asked for, if one was; asked once more when it has not. */
async function askVerified(name: string, wanted: Wanted, ask: () => Promise<Answer>): Promise<Answer> {
  for (let tries = 1; ; tries++) {
    const answer = await ask();
    if (!isDigest(name)) return answer;
    const computed = `sha256:${createHash('sha256').update(answer.body).digest('hex')}`;
    if (!answer.tooLong && computed === name) return answer;
    if (tries < TRIES_FOR_DIGEST) continue;
    const what = answer.tooLong ? 'more bytes than it should have' : `bytes whose digest is ${computed}`;
    throw new PullError('digest-mismatch', `${wanted.host} answers for ${wanted.kind} ${name} with ${what}`, {
      hint: 'what the registry or a proxy before it holds is damaged',
    });
  }
}

/** The token server, asked of the registry itself: for sessions whose first question comes from a worker. */
async function probeTokenSource(context: Context): Promise<URL | undefined> {
  const answer = await askPatiently(context, '/v2/', {}, MAX_TOKEN_ANSWER_BYTES);
  if (answer.status !== 401) return undefined;
  return tokenUrl(challengesOf(answer), currentOrigin(context), context.options.repository);
}

async function fetchToken(context: Context, source: URL): Promise<Token> {
  const { options } = context;
  const askOnce = async () => {
    const result = await exchange(context, source, { accept: 'application/json' }, MAX_TOKEN_ANSWER_BYTES);
    if ('again' in result) return result;
    if ('final' in result) throw result.final;
    const { status, body } = result.answer;
    if (status >= 200 && status < 300) return { body };
    const words = firstErrorMessage(body);
    const code = status === 401 || status === 403 ? 'unauthorized' : 'answer-unexpected';
    throw new PullError(
      code,
      `the token server ${source.host} answered ${status}${words === undefined ? '' : `: ${words}`}`,
      { hint: `check that ${options.repository} exists and that everyone may read it` },
    );
  };
  const body = await askThreeTimes(askOnce, (message) =>
    options.patience.miss(networkMiss(`no token from ${source.host}: ${message}`)),
  );
  return parseToken(body, source.host, Date.now());
}

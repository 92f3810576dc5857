import { setTimeout as sleep } from 'node:timers/promises';
import { PullError } from '../format/error.js';
import type { Credential } from './credentials.js';
import {
  createBreakCounter,
  currentOrigin,
  exchange,
  exchangeWithRetries,
  networkMiss,
  type ServedResponse,
  type SessionContext,
} from './exchange.js';
import { type Challenge, parseChallenges } from './headers.js';
import type { HttpResponse } from './http-client.js';
import { noteAuthorization, noteSecret } from './redaction.js';
import {
  loginHint,
  serverSays,
  type Tried,
  tooManyRequests,
  unexpectedAnswer,
  webPageError,
} from './refusal.js';
import { MAX_TOKEN_TRIES } from './retry-rules.js';
import {
  basicValue,
  cachedToken,
  createTokenKeeper,
  parseToken,
  type Token,
  type TokenRequest,
  tokenRequest,
  tokenUrl,
} from './token.js';

const MAX_TOKEN_RESPONSE_BYTES = 1024 * 1024;

/** Between two tries: long enough for a restarted backend, too short for a user to notice. */
const RETRY_MS = 300;

/** The Authorization of one session's requests. */
export interface Authorizer {
  /** The value of the Authorization header; see TokenKeeper. */
  authorization(stale?: string): Promise<string | undefined>;
  readonly expiresAtMs: number;
  /** The current value was fetched for another pull: a new one may be accepted instead. */
  readonly isInherited: boolean;
  /** Notes the challenges of a 401 of the registry itself: the next renewal follows them. */
  challenged(response: HttpResponse): void;
  /** The source of the credentials behind the current value, and the sources that were searched. */
  tried(): Tried;
}

/** Authorization as the registry's challenges require it, with the user's credentials. */
export function createAuthorizer(context: SessionContext): Authorizer {
  const { credentials } = context.options;
  let challenges: readonly Challenge[] | undefined;
  let found: Credential | undefined;
  let isInherited = false;

  const keeper = createTokenKeeper(async (stale) => {
    challenges ??= await probe(context);
    if (challenges.length === 0) return undefined;
    found = await credentials?.find();
    if (found !== undefined) noteSecret(found.secret);
    isInherited = false;
    const source = tokenUrl(challenges, currentOrigin(context), context.options.repository);
    if (source === undefined) return basicAuthorization(challenges, found);
    const request = tokenRequest(source, found?.secret);
    isInherited = true;
    return cachedToken(context.options.tokens, request, stale, Date.now, () => {
      isInherited = false;
      return fetchToken(context, request, found);
    });
  }, Date.now);

  return {
    authorization: async (stale) => {
      const value = await keeper.authorization(stale);
      if (value !== undefined) noteAuthorization(value);
      return value;
    },
    get expiresAtMs() {
      return keeper.expiresAtMs;
    },
    get isInherited() {
      return isInherited;
    },
    challenged: (response) => {
      const stated = challengesOf(response);
      // Some servers refuse an expired token without a challenge, or with an error alone (RFC 6750,
      // 3).
      if (stated.some(canBeMet) || challenges === undefined) challenges = stated;
    },
    tried: () => ({ from: found?.from, sources: credentials?.sources ?? [] }),
  };
}

function challengesOf(response: HttpResponse): Challenge[] {
  return parseChallenges(response.headers['www-authenticate']);
}

/** Whether a challenge says how to meet it: with a token of a token server, or with a password. */
function canBeMet({ scheme, parameters }: Challenge): boolean {
  return scheme === 'basic' || (scheme === 'bearer' && parameters.has('realm'));
}

/** The challenges of the registry itself, for sessions whose first request is a worker's. */
async function probe(context: SessionContext): Promise<readonly Challenge[]> {
  const request = { headers: {}, maxBytes: MAX_TOKEN_RESPONSE_BYTES };
  const { response, isCrossOrigin, action } = await exchangeWithRetries(context, '/v2/', request);
  return action === 'renew-token' && !isCrossOrigin ? challengesOf(response) : [];
}

/** A header value that meets a Basic challenge; undefined when these credentials cannot. */
function basicAuthorization(
  challenges: readonly Challenge[],
  found: Credential | undefined,
): Token | undefined {
  const basic = challenges.some(({ scheme }) => scheme === 'basic');
  if (!basic || found?.secret.kind !== 'password') return undefined;
  return { value: basicValue(found.secret), expiresAtMs: Number.POSITIVE_INFINITY };
}

async function fetchToken(
  context: SessionContext,
  { url, ...request }: TokenRequest,
  found: Credential | undefined,
): Promise<Token> {
  const countBreak = createBreakCounter();
  for (let tries = 1; ; tries++) {
    const result = await exchange(context, url, { ...request, maxBytes: MAX_TOKEN_RESPONSE_BYTES });
    if ('final' in result) throw result.final;
    if ('response' in result) {
      if (result.action !== 'accept') throw tokenRefusal(context, result, found);
      const { body } = result.response;
      const page = webPageError(url.host, 'a token', body);
      if (page !== undefined) throw page;
      return parseToken(body, url.host, Date.now());
    }
    countBreak(result);
    const miss = networkMiss(`no token from ${url.host}: ${result.retryReason}`);
    if (tries % MAX_TOKEN_TRIES === 0) await context.options.retryPolicy.miss(miss, result);
    else await sleep(RETRY_MS);
  }
}

/** Token servers refuse users by 401 or 403, and refresh tokens by 400 (RFC 6749, 5.2). */
function tokenRefusal(
  { options }: SessionContext,
  { response, host, isCrossOrigin }: ServedResponse,
  found: Credential | undefined,
): PullError {
  const { status, body } = response;
  const reason = serverSays(body, ': ');
  if (isCrossOrigin) {
    return unexpectedAnswer(`${host}, to which the token server redirects, answered ${status}${reason}`);
  }
  if (status === 429) return tooManyRequests(`the token server ${host}`, host, body);
  const isRefused =
    status === 401 || status === 403 || (status === 400 && found?.secret.kind === 'identity-token');
  if (!isRefused) {
    return unexpectedAnswer(`the token server ${host} answered ${status}${reason}`);
  }
  const whose = found === undefined ? '' : ` to the credentials of ${found.from}`;
  return new PullError('unauthorized', `the token server ${host} answered ${status}${whose}${reason}`, {
    hint: loginHint(options.host, { from: found?.from, sources: options.credentials?.sources ?? [] }),
  });
}

import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { PullError } from '../format/error.js';
import { isObject } from '../format/strict-json.js';
import type { Secret } from './auth-file.js';
import type { Challenge } from './headers.js';
import type { FailedHost } from './network-error.js';
import { unexpectedAnswer } from './refusal.js';
import { isLoopback, isUsableHost } from './urls.js';

/** Docker's token specification: a token without `expires_in` lives 60 s, and none less. */
const MIN_LIFE_S = 60;
const MAX_LIFE_S = 24 * 3600;

/** A token is renewed this long before it dies, so that it does not die under way. */
const MARGIN_MS = 10_000;

/** Docker Hub's tokens have 2 to 5 KiB; above 16 KiB no server takes the header. */
const MAX_TOKEN_LENGTH = 16 * 1024;

/** A token server is asked up to three times before its silence counts as a miss. */
const TRIES = 3;

/** Between two tries: long enough for a restarted backend, too short for a user to notice. */
const TRY_AGAIN_MS = 300;

export interface Token {
  /** The whole value of the Authorization header. */
  readonly value: string;
  readonly expiresAtMs: number;
}

/** What one request to a token server came to: its JSON, or why it is worth asking again. */
export type TokenAnswer = { readonly body: Buffer } | TokenFailure;

interface TokenFailure extends FailedHost {
  readonly again: string;
}

/**
 * Where to ask for a pull token, after the registry's challenges.
 * @returns undefined when the registry has no token server
 * @throws PullError `answer-unexpected` for a realm that is no URL, `redirect-refused` for a plain http realm of a
 *   registry that itself has https
 */
export function tokenUrl(
  challenges: readonly Challenge[],
  registry: URL,
  repository: string,
): URL | undefined {
  const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
  const realm = bearer?.parameters.get('realm');
  if (bearer === undefined || realm === undefined) return undefined;
  const url = URL.canParse(realm) ? new URL(realm) : undefined;
  const isHttp = url?.protocol === 'https:' || url?.protocol === 'http:';
  if (url === undefined || !isHttp || !isUsableHost(url)) {
    throw unexpectedAnswer(`${registry.host} names a token server that is not an http(s) URL`);
  }
  if (url.protocol === 'http:' && registry.protocol === 'https:' && !isLoopback(registry.hostname)) {
    throw new PullError(
      'redirect-refused',
      `${registry.host} sends token requests over plain http to ${url.host}`,
      {
        hint: 'the registry is set up wrongly: its token server needs https',
      },
    );
  }
  url.username = '';
  url.password = '';
  url.hash = '';
  const service = bearer.parameters.get('service');
  if (service !== undefined) url.searchParams.set('service', service);
  // Never the scope of the challenge: reading this repository is all that is needed.
  url.searchParams.set('scope', `repository:${repository}:pull`);
  return url;
}

/** A question to a token server. */
export interface TokenRequest {
  readonly url: URL;
  readonly headers: Record<string, string>;
  readonly method?: 'POST';
  readonly body?: string;
}

/** Who asks, in the token server's books; OAuth 2 wants a name. */
const CLIENT_ID = 'zpull';

/**
 * How to ask a token server: GET, with Basic credentials if there are any, or POST with a refresh token (Docker's
 * "Token Authentication Specification" and "Oauth2 Token Authentication"). `source` is what `tokenUrl` returned.
 */
export function tokenRequest(source: URL, secret: Secret | undefined): TokenRequest {
  const url = new URL(source);
  const headers = { accept: 'application/json' };
  if (secret === undefined) return { url, headers };
  if (secret.kind === 'password') {
    url.searchParams.set('account', secret.username);
    return { url, headers: { ...headers, authorization: basicValue(secret) } };
  }
  const form = new URLSearchParams({ grant_type: 'refresh_token', client_id: CLIENT_ID });
  for (const name of ['service', 'scope']) {
    form.set(name, url.searchParams.get(name) ?? '');
    url.searchParams.delete(name);
  }
  form.set('refresh_token', secret.token);
  const type = { 'content-type': 'application/x-www-form-urlencoded' };
  return { url, headers: { ...headers, ...type }, method: 'POST', body: form.toString() };
}

/** The Authorization value for a user name and a password (RFC 7617, in UTF-8). */
export function basicValue({ username, password }: Secret & { kind: 'password' }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/**
 * A token server's answer as a token (Docker's "Token Authentication Specification").
 * @throws PullError `answer-unexpected` without a token that can stand in a header
 */
export function parseToken(body: Buffer, host: string, nowMs: number): Token {
  let answer: unknown;
  try {
    answer = JSON.parse(body.toString('utf8'));
  } catch {
    answer = undefined;
  }
  const fields = isObject(answer) ? answer : {};
  const token = [fields['token'], fields['access_token']].find(
    (value) => value !== undefined && value !== null && value !== '',
  );
  if (typeof token !== 'string' || token.length > MAX_TOKEN_LENGTH || !/^[\x21-\x7e]+$/.test(token)) {
    throw unexpectedAnswer(`the token server ${host} answered without a usable token`);
  }
  const life = fields['expires_in'];
  const lifeS = typeof life === 'number' ? Math.min(MAX_LIFE_S, Math.max(MIN_LIFE_S, life)) : MIN_LIFE_S;
  return { value: `Bearer ${token}`, expiresAtMs: nowMs + lifeS * 1000 - MARGIN_MS };
}

/**
 * Asks up to three times; `miss` is called with the last failure when all three failed, and then it begins again.
 */
export async function askThreeTimes(
  ask: () => Promise<TokenAnswer>,
  miss: (failure: TokenFailure) => Promise<void>,
): Promise<Buffer> {
  for (let tries = 1; ; tries++) {
    const answer = await ask();
    if ('body' in answer) return answer.body;
    if (tries % TRIES === 0) await miss(answer);
    else await sleep(TRY_AGAIN_MS);
  }
}

/** The registry's token or other header value, kept and renewed for all who share a session. */
export interface TokenKeeper {
  /**
   * The value of the Authorization header, renewed when it is about to expire. `stale` is a value the registry has
   * refused ('' for a request that had none): it is replaced, once for all who report it.
   * @returns undefined when there is none to be had with the credentials there are
   */
  authorization(stale?: string): Promise<string | undefined>;
  /** From when on (Unix time) the present value is to be renewed before it is used. */
  readonly expiresAtMs: number;
}

/** `renew` fetches a new token in place of `stale`; `nowMs` is the clock. Calls at the same time share one renewal. */
export function createTokenKeeper(
  renew: (stale: string | undefined) => Promise<Token | undefined>,
  nowMs: () => number,
): TokenKeeper {
  let token: Token | undefined;
  let renewing: Promise<Token | undefined> | undefined;
  return {
    get expiresAtMs() {
      return token?.expiresAtMs ?? Number.POSITIVE_INFINITY;
    },
    async authorization(stale) {
      const good = token !== undefined && token.value !== stale && token.expiresAtMs > nowMs();
      if (good || (token === undefined && stale === undefined)) return token?.value;
      renewing ??= renew(stale).finally(() => {
        renewing = undefined;
      });
      token = await renewing;
      return token?.value;
    },
  };
}

/** Tokens by what was asked for them: of all pulls of one command, which share it, and of no other. */
export type TokenCache = Map<string, Promise<Token>>;

/**
 * The token that a request is answered with, kept for all who ask the same server the same with the same credentials.
 * `stale`, a value that was refused ('' for none), and what has expired are replaced by what `fetch` finds, once for all
 * who ask meanwhile. Whose fetch fails hears of it alone.
 */
export async function cachedToken(
  cache: TokenCache,
  request: TokenRequest,
  stale: string | undefined,
  nowMs: () => number,
  fetch: () => Promise<Token>,
): Promise<Token> {
  // A digest: the request has the credentials in it.
  const key = createHash('sha256').update(JSON.stringify(request)).digest('hex');
  for (;;) {
    const kept = cache.get(key);
    const token = await kept?.catch(() => undefined);
    if (token !== undefined && token.value !== stale && token.expiresAtMs > nowMs()) return token;
    if (cache.get(key) !== kept) continue; // another has begun to replace it meanwhile
    const fetching = fetch();
    cache.set(key, fetching);
    return fetching;
  }
}

import { createHash } from 'node:crypto';
import { PullError } from '../format/error.js';
import { isObject } from '../format/strict-json.js';
import type { Secret } from './auth-file.js';
import type { Challenge } from './headers.js';
import { unexpectedAnswer } from './refusal.js';
import { isLoopback, isUsableHost } from './transport.js';

/**
 * Docker's token specification: a token without `expires_in` is valid for 60 s, and none for less.
 */
const MIN_LIFE_S = 60;
const MAX_LIFE_S = 24 * 3600;

/** A token is renewed this long before it expires, so that it does not expire on its way. */
const MARGIN_MS = 10_000;

/** Docker Hub's tokens have 2 to 5 KiB; no server accepts a header above 16 KiB. */
const MAX_TOKEN_LENGTH = 16 * 1024;

export interface Token {
  /** The full value of the Authorization header. */
  readonly value: string;
  readonly expiresAtMs: number;
}

/**
 * The URL of the registry's token server, from its challenges.
 * @returns undefined when the registry has no token server
 * @throws PullError `answer-unexpected` for a realm that is no URL, `redirect-refused` for a plain
 *   http realm of a registry that itself has https
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
    const problem = `${registry.host} sends token requests over plain http to ${url.host}`;
    throw new PullError('redirect-refused', problem, {
      hint: 'the registry is set up wrongly: its token server needs https',
    });
  }
  url.username = '';
  url.password = '';
  url.hash = '';
  const service = bearer.parameters.get('service');
  if (service !== undefined) url.searchParams.set('service', service);
  // Never the scope of the challenge: permission to pull this repository is enough.
  url.searchParams.set('scope', `repository:${repository}:pull`);
  return url;
}

/** A request to a token server. */
export interface TokenRequest {
  readonly url: URL;
  readonly headers: Record<string, string>;
  readonly method?: 'POST';
  readonly body?: string;
}

/** OAuth 2 requires the name of the client. */
const CLIENT_ID = 'zpull';

/**
 * The request to a token server: GET, with Basic credentials if there are any, or POST with a
 * refresh token (Docker's "Token Authentication Specification" and "Oauth2 Token Authentication").
 * `source` is what `tokenUrl` returned.
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
 * The token in a token server's response (Docker's "Token Authentication Specification").
 * @throws PullError `answer-unexpected` without a token that is valid in a header
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

/** The Authorization value of a registry, cached and renewed for all requests of a session. */
export interface TokenKeeper {
  /**
   * The value of the Authorization header, renewed when it is about to expire. `stale` is a value
   * the registry has refused ('' for a request that had none): it is replaced, once for all
   * requests that report it.
   * @returns undefined when the user's credentials yield none
   */
  authorization(stale?: string): Promise<string | undefined>;
  /** When (Unix time) the current value is to be renewed. */
  readonly expiresAtMs: number;
}

/** `renew` fetches a token in place of `stale`. Concurrent calls share one renewal. */
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

/** Tokens by their requests, shared by all pulls of one command and no others. */
export type TokenCache = Map<string, Promise<Token>>;

/**
 * The token for a request, cached for all callers with the same server, scope and credentials. A
 * `stale` value that was refused ('' for none) or has expired is replaced by what `fetch` returns,
 * once for all concurrent callers. A failed fetch rejects for its own caller only; the others fetch
 * themselves.
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
    const cached = cache.get(key);
    const token = await cached?.catch(() => undefined);
    if (token !== undefined && token.value !== stale && token.expiresAtMs > nowMs()) return token;
    if (cache.get(key) !== cached) continue; // another caller is already replacing it
    const fetching = fetch();
    cache.set(key, fetching);
    return fetching;
  }
}

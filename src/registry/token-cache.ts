import { createHash } from 'node:crypto';
import type { Token, TokenRequest } from './token.js';

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

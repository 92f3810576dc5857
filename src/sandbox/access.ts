import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import type { Digest } from '../format/digest.js';

/** Wildcard addresses. Behind a NAT, the server does not know the address that the client used. */
const ALL_ADDRESSES = ['0.0.0.0', '::'];

/**
 * Returns whether the Host header of a request names this server. Without the check, a web page
 * whose own name resolves to this machine (DNS rebinding) could read the registry through a
 * browser.
 */
export type Hosts = (message: IncomingMessage) => boolean;

/** Returns the check for a server that listens on `names` or is known by them. */
export function createHosts(names: readonly string[]): Hosts {
  const known = new Set(names.map((name) => name.toLowerCase()));
  const everywhere = ALL_ADDRESSES.some((address) => known.has(address));
  return ({ headers, socket }) => {
    // Optional in HTTP/1.0, which no browser speaks.
    if (headers.host === undefined) return true;
    const name = hostname(headers.host);
    if (name === undefined) return false;
    if (known.has(name) || isLoopback(name)) return true;
    // A rebinding page needs a name, not an address.
    return everywhere ? isIP(name) !== 0 : name === plainAddress(socket.localAddress);
  };
}

/** Returns the name in `NAME:PORT` or `[ADDRESS]:PORT` in lower case, or undefined if malformed. */
function hostname(host: string): string | undefined {
  const [, address, name] = /^(?:\[([0-9a-f:.]+)\]|([^:@/\s[\]]+))(?::\d*)?$/i.exec(host) ?? [];
  return (address ?? name)?.toLowerCase();
}

/** RFC 6761, section 6.3; RFC 1122, section 3.2.1.3. */
function isLoopback(name: string): boolean {
  return /^(?:.+\.)?localhost$/.test(name) || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

/** Removes the prefix of an IPv4-mapped address: `::ffff:192.0.2.1`. */
function plainAddress(address = ''): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '');
}

/** Signs and checks bearer tokens and URLs of the second origin. */
export interface Gatekeeper {
  /** Returns a token for these scopes that is valid until `expiresMs`. */
  issueToken(scopes: readonly string[], expiresMs: number): string;
  /**
   * Returns whether an Authorization header has a token that is valid at `nowMs` and covers
   * `scope`.
   */
  admits(authorization: string | undefined, scope: string | undefined, nowMs: number): boolean;
  /**
   * Returns a signed path and query for a blob on the second origin, valid until `expiresMs` for at
   * most `maxUses` requests.
   */
  signBlob(digest: Digest, expiresMs: number, maxUses?: number): string;
  /** Returns whether a path and query are signed and valid at `nowMs`, and counts one use. */
  acceptsSigned(path: string, query: URLSearchParams, nowMs: number): boolean;
}

/** Path prefix of signed URLs on the second origin. */
export const SIGNED_PREFIX = '/signed/';

/** Signed URLs with counted uses, 1 MB; beyond the limit the oldest expire. */
const MAX_COUNTED = 10_000;

/**
 * Creates a gatekeeper with a random key, so that nothing stays valid after the server has ended.
 */
export function createGatekeeper(): Gatekeeper {
  const key = randomBytes(32);
  /** Remaining uses of signed URLs, by number. */
  const remaining = new Map<string, number>();
  let numbered = 0;
  const sign = (text: string): string => createHmac('sha256', key).update(text).digest('hex');
  const isSigned = (text: string, signature: string): boolean => {
    const expected = Buffer.from(sign(text));
    const actual = Buffer.from(signature);
    return actual.length === expected.length && timingSafeEqual(actual, expected);
  };
  return {
    issueToken: (scopes, expiresMs) => {
      const claim = Buffer.from(JSON.stringify({ scopes, expiresMs })).toString('base64url');
      return `${claim}.${sign(`token ${claim}`)}`;
    },
    admits: (authorization, scope, nowMs) => {
      const [, claim = '', signature = ''] =
        /^bearer ([\w-]+)\.([0-9a-f]+)$/i.exec(authorization ?? '') ?? [];
      if (!isSigned(`token ${claim}`, signature)) return false;
      const { scopes, expiresMs } = JSON.parse(Buffer.from(claim, 'base64url').toString()) as {
        scopes: string[];
        expiresMs: number;
      };
      return nowMs < expiresMs && (scope === undefined || scopes.some((granted) => covers(granted, scope)));
    },
    signBlob: (digest, expiresMs, maxUses) => {
      const path = `${SIGNED_PREFIX}${digest}`;
      const number = maxUses === undefined ? '' : String(++numbered);
      if (maxUses !== undefined && maxUses > 0) remaining.set(number, maxUses);
      if (remaining.size > MAX_COUNTED) remaining.delete(remaining.keys().next().value!);
      const signature = sign(`url ${path} ${expiresMs} ${number}`);
      return `${path}?expires=${expiresMs}&number=${number}&signature=${signature}`;
    },
    acceptsSigned: (path, query, nowMs) => {
      const [expires, number, signature] = ['expires', 'number', 'signature'].map(
        (name) => query.get(name) ?? '',
      );
      if (!isSigned(`url ${path} ${expires} ${number}`, signature!) || nowMs >= Number(expires)) return false;
      if (number === '') return true;
      const uses = remaining.get(number!) ?? 0;
      if (uses > 1) remaining.set(number!, uses - 1);
      else remaining.delete(number!);
      return uses > 0;
    },
  };
}

/** Returns whether a scope such as `repository:a/b:pull,push` covers `repository:a/b:pull`. */
function covers(granted: string, required: string): boolean {
  const cut = required.lastIndexOf(':');
  return (
    granted.startsWith(required.slice(0, cut + 1)) &&
    granted
      .slice(cut + 1)
      .split(',')
      .includes(required.slice(cut + 1))
  );
}

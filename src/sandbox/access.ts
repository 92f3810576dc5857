import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import type { Digest } from '../format/digest.js';

/** Addresses that stand for all that a machine has: behind a NAT it does not know by which one it was reached. */
const ALL_ADDRESSES = ['0.0.0.0', '::'];

/**
 * Whether a request asks for a host that this server is. A page of another site that has its own name point here (DNS rebinding) would
 * otherwise read through a browser what only this machine may.
 */
export type Hosts = (message: IncomingMessage) => boolean;

/** The hosts of a server that was told to listen on, or to be known by, `names`. */
export function createHosts(names: readonly string[]): Hosts {
  const known = new Set(names.map((name) => name.toLowerCase()));
  const everywhere = ALL_ADDRESSES.some((address) => known.has(address));
  return ({ headers, socket }) => {
    // HTTP/1.0 may leave it out, and no browser speaks that.
    if (headers.host === undefined) return true;
    const name = hostname(headers.host);
    if (name === undefined) return false;
    if (known.has(name) || isLoopback(name)) return true;
    // No page has an address instead of a name of its own.
    return everywhere ? isIP(name) !== 0 : name === plainAddress(socket.localAddress);
  };
}

/** The name of `NAME:PORT` or `[ADDRESS]:PORT`, in lower case. */
function hostname(host: string): string | undefined {
  const [, address, name] = /^(?:\[([0-9a-f:.]+)\]|([^:@/\s[\]]+))(?::\d*)?$/i.exec(host) ?? [];
  return (address ?? name)?.toLowerCase();
}

/** RFC 6761, section 6.3; RFC 1122, section 3.2.1.3. */
function isLoopback(name: string): boolean {
  return /^(?:.+\.)?localhost$/.test(name) || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

/** An IPv4 address as a socket of both versions has it: `::ffff:192.0.2.1`. */
function plainAddress(address = ''): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '');
}

/** Signs what this server hands out and knows it again: bearer tokens and URLs of the second origin. */
export interface Gatekeeper {
  /** A token for these scopes that is good until `expiresMs`. */
  issueToken(scopes: readonly string[], expiresMs: number): string;
  /** Whether this Authorization header carries a token that is good at `nowMs` and covers `scope`. */
  admits(authorization: string | undefined, scope: string | undefined, nowMs: number): boolean;
  /** The path and query under which the second origin hands out a blob until `expiresMs`, at most `most` times. */
  signBlob(digest: Digest, expiresMs: number, most?: number): string;
  /** Whether a path and its query are a signed URL of this server, still good at `nowMs`; this is one more time. */
  acceptsSigned(path: string, query: URLSearchParams, nowMs: number): boolean;
}

/** Where signed URLs live on the second origin. */
export const SIGNED_PREFIX = '/signed/';

/** Signed URLs whose uses are counted; beyond that the oldest ones are good no more. 1 MB. */
const MAX_COUNTED = 10_000;

/** A gatekeeper with a key of its own: nothing outlives the server. */
export function createGatekeeper(): Gatekeeper {
  const key = randomBytes(32);
  /** How many more times URLs that are good for so many are: by their number, until it is 0. */
  const left = new Map<string, number>();
  let numbered = 0;
  const sign = (text: string): string => createHmac('sha256', key).update(text).digest('hex');
  const isSigned = (text: string, signature: string): boolean => {
    const expected = Buffer.from(sign(text));
    const given = Buffer.from(signature);
    return given.length === expected.length && timingSafeEqual(given, expected);
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
      return nowMs < expiresMs && (scope === undefined || scopes.some((given) => covers(given, scope)));
    },
    signBlob: (digest, expiresMs, most) => {
      const path = `${SIGNED_PREFIX}${digest}`;
      const number = most === undefined ? '' : String(++numbered);
      if (most !== undefined && most > 0) left.set(number, most);
      if (left.size > MAX_COUNTED) left.delete(left.keys().next().value!);
      const signature = sign(`url ${path} ${expiresMs} ${number}`);
      return `${path}?expires=${expiresMs}&number=${number}&signature=${signature}`;
    },
    acceptsSigned: (path, query, nowMs) => {
      const [expires, number, signature] = ['expires', 'number', 'signature'].map(
        (name) => query.get(name) ?? '',
      );
      if (!isSigned(`url ${path} ${expires} ${number}`, signature!) || nowMs >= Number(expires)) return false;
      if (number === '') return true;
      const times = left.get(number!) ?? 0;
      if (times > 1) left.set(number!, times - 1);
      else left.delete(number!);
      return times > 0;
    },
  };
}

/** Whether a scope such as `repository:a/b:pull,push` covers `repository:a/b:pull`. */
function covers(given: string, wanted: string): boolean {
  const cut = wanted.lastIndexOf(':');
  return (
    given.startsWith(wanted.slice(0, cut + 1)) &&
    given
      .slice(cut + 1)
      .split(',')
      .includes(wanted.slice(cut + 1))
  );
}

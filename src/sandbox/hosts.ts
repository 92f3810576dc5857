import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';

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

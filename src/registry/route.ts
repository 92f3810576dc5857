import type { Agent, RequestOptions } from 'node:http';
import { isIP, type Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import type { HttpProxy } from './proxy.js';
import { namesProxy, type Transport } from './transport.js';

/** How node:http gets a request to its server: at once, or by a proxy. */
export interface Route {
  /** Whether the server that is connected to first speaks TLS. */
  readonly secure: boolean;
  readonly target: RequestOptions;
  readonly headers: Readonly<Record<string, string>>;
  readonly tls: TlsOptions | undefined;
  /** The proxy that makes a connection to the server. */
  readonly tunnel: HttpProxy | undefined;
  /** `host:port` of the proxy that is asked for the whole URL instead. */
  readonly askedProxy: string | undefined;
}

interface TlsOptions {
  readonly secureContext: SecureContext;
  readonly rejectUnauthorized: boolean;
}

const trusted = new WeakMap<Transport, SecureContext>();

/** Read at the first https request: it takes 17 ms, and a loopback registry never needs it. */
async function tlsOptions(transport: Transport): Promise<TlsOptions> {
  const { createTrust } = await import('./trust.js');
  const secureContext = trusted.get(transport) ?? createTrust(transport);
  trusted.set(transport, secureContext);
  return { secureContext, rejectUnauthorized: transport.tlsVerify };
}

/**
 * The way to a URL's server.
 * @throws PullError `option-malformed` for a proxy that is no URL, and for certificates that cannot be used
 */
export async function findRoute(url: URL, transport: Transport): Promise<Route> {
  const proxy = await proxyTo(url, transport);
  const asked = url.protocol === 'http:' ? proxy : undefined;
  const first = new URL(asked?.origin ?? url.origin);
  const secure = first.protocol === 'https:';
  return {
    secure,
    target: {
      protocol: first.protocol,
      hostname: first.hostname.replace(/^\[|\]$/g, ''),
      port: first.port,
      path: asked === undefined ? url.pathname + url.search : url.origin + url.pathname + url.search,
    },
    headers: {
      ...(asked !== undefined && { host: url.host }),
      ...(asked?.authorization !== undefined && { 'proxy-authorization': asked.authorization }),
    },
    tls: secure ? await tlsOptions(transport) : undefined,
    tunnel: asked === undefined ? proxy : undefined,
    askedProxy: asked?.host,
  };
}

/** Nothing is loaded where no proxy is named. */
async function proxyTo(url: URL, { environment }: Transport): Promise<HttpProxy | undefined> {
  if (!namesProxy(environment)) return undefined;
  const { proxyFor } = await import('./proxy.js');
  return proxyFor(url, environment);
}

/** How long one of several addresses is waited for before the next is tried, where the 250 ms of Node were too short. */
export function addressTimeoutMs(connectTimeoutMs: number): number {
  return Math.ceil(connectTimeoutMs / 2);
}

/** An agent whose connections go that way; a patient one gives slow addresses more time. */
export async function createAgent(
  route: Route,
  keepAlive: boolean,
  timeoutMs: number,
  isPatient: boolean,
): Promise<Agent> {
  const http = route.secure ? await import('node:https') : await import('node:http');
  const { tunnel, tls } = route;
  const patience = isPatient ? { autoSelectFamilyAttemptTimeout: addressTimeoutMs(timeoutMs) } : {};
  if (tunnel === undefined || tls === undefined) return new http.Agent({ keepAlive, ...patience });
  const [{ openTunnel }, { connect }] = await Promise.all([import('./tunnel.js'), import('node:tls')]);
  const through = async (options: RequestOptions): Promise<Socket> => {
    const { host, port } = options as { host: string; port: number };
    const target = `${host.includes(':') ? `[${host}]` : host}:${port}`;
    const socket = await openTunnel(tunnel, target, { timeoutMs, ...tls });
    return connect({ socket, host, ...(isIP(host) === 0 && { servername: host }), ...tls });
  };
  return Object.assign(new http.Agent({ keepAlive }), {
    createConnection(options: RequestOptions, made: (error: Error | null, socket?: Socket) => void): void {
      through(options).then((socket) => made(null, socket), made);
    },
  });
}

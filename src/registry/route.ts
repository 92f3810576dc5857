import type { Agent, RequestOptions } from 'node:http';
import { isIP, type Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import { type Attempt, connected, connectPatiently, whenReady } from './patient-connect.js';
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

/** An agent whose connections go that way. Each stands before a request has it, its TLS included. */
export async function createAgent(route: Route, keepAlive: boolean, timeoutMs: number): Promise<Agent> {
  const http = route.secure ? await import('node:https') : await import('node:http');
  const { tunnel, tls, secure } = route;
  const agent = new http.Agent({ keepAlive });
  const direct = agent.createConnection.bind(agent);
  const destroy = agent.destroy.bind(agent);
  const pending = new Set<() => void>();
  return Object.assign(agent, {
    createConnection(options: RequestOptions, made: Made): void {
      const ready = secure ? 'secureConnect' : 'connect';
      if (tunnel === undefined || tls === undefined) {
        const attempt: Attempt = (more, done) =>
          whenReady(direct({ ...options, ...more }) as Socket, ready, done);
        const cancel = connectPatiently(attempt, timeoutMs, (error, socket) => {
          pending.delete(cancel);
          made(error, socket);
        });
        pending.add(cancel);
        return;
      }
      connectThrough(tunnel, tls, options, timeoutMs).then(
        (socket) => made(null, socket),
        (error: Error) => made(error, null),
      );
    },
    destroy(): void {
      for (const cancel of pending) cancel();
      destroy();
    },
  });
}

type Made = (error: Error | null, socket: Socket | null) => void;

/** A TLS connection to the server of `options`, through a tunnel. */
async function connectThrough(
  proxy: HttpProxy,
  tls: TlsOptions,
  options: RequestOptions,
  timeoutMs: number,
): Promise<Socket> {
  const [{ openTunnel }, { connect }] = await Promise.all([import('./tunnel.js'), import('node:tls')]);
  const { host, port } = options as { host: string; port: number };
  const target = `${host.includes(':') ? `[${host}]` : host}:${port}`;
  const socket = await openTunnel(proxy, target, { timeoutMs, ...tls });
  const secured = { socket, host, ...(isIP(host) === 0 && { servername: host }), ...tls };
  return connected((_, done) => whenReady(connect(secured), 'secureConnect', done), timeoutMs);
}

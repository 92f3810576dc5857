import type { Agent, RequestOptions } from 'node:http';
import { connect, isIP, type Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import { proxyError, timeoutError } from './network-error.js';
import { type HttpProxy, portOf, proxyFor, type Transport } from './transport.js';

/** How node:http sends a request to its server: directly or by a proxy. */
export interface Route {
  /** Whether the first server on the way speaks TLS. */
  readonly secure: boolean;
  readonly target: RequestOptions;
  readonly headers: Readonly<Record<string, string>>;
  readonly tls: TlsOptions | undefined;
  /** The proxy that tunnels a connection to the server. */
  readonly tunnel: HttpProxy | undefined;
  /** `host:port` of the proxy that receives the request instead, with the full URL. */
  readonly forwardProxy: string | undefined;
}

export interface TlsOptions {
  readonly secureContext: SecureContext;
  readonly rejectUnauthorized: boolean;
}

const trusted = new WeakMap<Transport, SecureContext>();

/** Read at the first https request: it takes 17 ms, and a loopback registry never needs it. */
export async function tlsOptions(transport: Transport): Promise<TlsOptions> {
  const { createTrust } = await import('./trust.js');
  const secureContext = trusted.get(transport) ?? createTrust(transport);
  trusted.set(transport, secureContext);
  return { secureContext, rejectUnauthorized: transport.tlsVerify };
}

/**
 * The route to a URL's server.
 * @throws PullError `option-malformed` for a proxy that is no URL, and for certificates that cannot
 *   be used
 */
export async function findRoute(url: URL, transport: Transport): Promise<Route> {
  const proxy = proxyFor(url, transport.environment);
  const forward = url.protocol === 'http:' ? proxy : undefined;
  const first = new URL(forward?.origin ?? url.origin);
  const secure = first.protocol === 'https:';
  return {
    secure,
    target: {
      protocol: first.protocol,
      hostname: first.hostname.replace(/^\[|\]$/g, ''),
      port: first.port,
      path: forward === undefined ? url.pathname + url.search : url.origin + url.pathname + url.search,
    },
    headers: {
      ...(forward !== undefined && { host: url.host }),
      ...(forward?.authorization !== undefined && { 'proxy-authorization': forward.authorization }),
    },
    tls: secure ? await tlsOptions(transport) : undefined,
    tunnel: forward === undefined ? proxy : undefined,
    forwardProxy: forward?.host,
  };
}

/** An agent whose connections take that route and are established for a request, with TLS. */
export async function createAgent(route: Route, keepAlive: boolean, timeoutMs: number): Promise<Agent> {
  const http = route.secure ? await import('node:https') : await import('node:http');
  const { tunnel, tls, secure } = route;
  const agent = new http.Agent({ keepAlive });
  const direct = agent.createConnection.bind(agent);
  const destroy = agent.destroy.bind(agent);
  const pending = new Set<() => void>();
  return Object.assign(agent, {
    createConnection(options: RequestOptions, made: Connected): void {
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

/** A TLS connection to the server of `options`, through a tunnel. */
async function connectThrough(
  proxy: HttpProxy,
  tls: TlsOptions,
  options: RequestOptions,
  timeoutMs: number,
): Promise<Socket> {
  const { connect } = await import('node:tls');
  const { host, port } = options as { host: string; port: number };
  const target = `${host.includes(':') ? `[${host}]` : host}:${port}`;
  const socket = await openTunnel(proxy, target, { timeoutMs, ...tls });
  const secured = { socket, host, ...(isIP(host) === 0 && { servername: host }), ...tls };
  return connected((_, done) => whenReady(connect(secured), 'secureConnect', done), timeoutMs);
}

/** A proxy's response to CONNECT is a few lines; a longer one is not HTTP. */
const MAX_HEAD_BYTES = 16 * 1024;

/** The TLS options are for a proxy that is itself reached over TLS. */
interface TunnelOptions extends TlsOptions {
  readonly timeoutMs: number;
}

/**
 * A connection through `proxy` to `target` (`host:port`), by CONNECT (RFC 9110, 9.3.6). Rejects
 * with an error that `describeNetworkError` understands.
 */
export async function openTunnel(proxy: HttpProxy, target: string, options: TunnelOptions): Promise<Socket> {
  const socket = await connectTo(proxy, options);
  return new Promise((resolve, reject) => {
    let head = '';
    const timer = setTimeout(() => fail(timeoutError('connect')), options.timeoutMs);
    function fail(error: Error, status?: number): void {
      clearTimeout(timer);
      socket.destroy();
      reject(proxyError(error, proxy.host, status));
    }
    function closed(): void {
      fail(Object.assign(new Error('closed'), { code: 'ECONNRESET' }));
    }
    function read(): void {
      // Byte by byte at the end: what follows the empty line is the target's and stays in the
      // socket.
      for (;;) {
        const byte = socket.read(1) as Buffer | null;
        if (byte === null) return;
        head += byte.toString('latin1');
        if (head.endsWith('\r\n\r\n')) {
          finish();
          return;
        }
        if (head.length > MAX_HEAD_BYTES) {
          fail(notHttp());
          return;
        }
      }
    }
    function finish(): void {
      clearTimeout(timer);
      socket.off('readable', read).off('error', fail).off('close', closed);
      const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1]);
      if (status >= 200 && status < 300) resolve(socket);
      else if (Number.isNaN(status)) fail(notHttp());
      else fail(new Error('refused'), status);
    }
    socket.on('readable', read).on('error', fail).on('close', closed);
    const credentials =
      proxy.authorization === undefined ? '' : `Proxy-Authorization: ${proxy.authorization}\r\n`;
    socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${credentials}\r\n`);
  });
}

/** The error of node:http for a response that is not HTTP. */
function notHttp(): Error {
  return Object.assign(new Error('no HTTP'), { code: 'HPE_INVALID_CONSTANT' });
}

/** A connection to the proxy itself. */
async function connectTo(proxy: HttpProxy, options: TunnelOptions): Promise<Socket> {
  const { secureContext, rejectUnauthorized, timeoutMs } = options;
  const url = new URL(proxy.origin);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const to = { host, port: portOf(url) };
  const secure = url.protocol === 'https:' ? await import('node:tls') : undefined;
  try {
    return await connected(
      (more, done) =>
        secure === undefined
          ? whenReady(connect({ ...to, ...more }), 'connect', done)
          : whenReady(
              secure.connect({ ...to, secureContext, rejectUnauthorized, ...more }),
              'secureConnect',
              done,
            ),
      timeoutMs,
    );
  } catch (error) {
    throw proxyError(error as Error, proxy.host);
  }
}

type Connected = (error: Error | null, socket: Socket | null) => void;

/** How `connect` of node:net tries the addresses of a name. */
interface AddressOptions {
  readonly autoSelectFamilyAttemptTimeout?: number;
}

/** Begins to connect and returns the socket at once. */
type Attempt = (options: AddressOptions, connected: Connected) => Socket;

/**
 * Connects to a name that may have several addresses, with a timeout. Node allows each address but
 * the last 250 ms and never returns to it, so a slow one would be lost. When that happens, all are
 * tried once more in parallel, with half of the timeout for each, and the first established
 * connection wins (compare RFC 8305, 5).
 * @returns a function that cancels it
 */
export function connectPatiently(attempt: Attempt, timeoutMs: number, connected: Connected): () => void {
  const sockets = new Set<Socket>();
  let isOver = false;
  const finish: Connected = (error, made) => {
    if (isOver) return;
    isOver = true;
    clearTimeout(timer);
    for (const socket of sockets) socket.destroy();
    connected(error, made);
  };
  const begin = (options: AddressOptions): Socket => {
    const socket = attempt(options, (error, made) => {
      sockets.delete(socket);
      if (error === null || sockets.size === 0) finish(error, made);
    });
    sockets.add(socket);
    return socket;
  };
  const timer = setTimeout(() => finish(timeoutError('connect'), null), timeoutMs);
  const patient = { autoSelectFamilyAttemptTimeout: Math.ceil(timeoutMs / 2) };
  begin({}).once('connectionAttemptTimeout', () => begin(patient));
  return () => finish(new Error('closed'), null);
}

/** Calls back when a connecting socket emits `event`, or has failed. */
function whenReady(socket: Socket, event: 'connect' | 'secureConnect', connected: Connected): Socket {
  return socket.once(event, () => connected(null, socket)).once('error', (error) => connected(error, null));
}

/** As `connectPatiently`. Rejects with the error. */
function connected(attempt: Attempt, timeoutMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    connectPatiently(attempt, timeoutMs, (error, socket) =>
      socket === null ? reject(error) : resolve(socket),
    );
  });
}

import { connect, type Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import { proxyError, timeoutError } from './network-error.js';
import { connected, whenReady } from './patient-connect.js';
import { type HttpProxy, portOf } from './proxy.js';

/** A proxy's answer to CONNECT is a few lines; what goes on for longer is none. */
const MAX_HEAD_BYTES = 16 * 1024;

interface TunnelOptions {
  readonly timeoutMs: number;
  /** For a proxy that is itself asked over TLS. */
  readonly secureContext: SecureContext;
  readonly rejectUnauthorized: boolean;
}

/**
 * A connection through `proxy` to `target` (`host:port`), by CONNECT (RFC 9110, 9.3.6): what is sent on it arrives there.
 * Rejects with an error that `describeNetworkError` understands.
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
      // Byte by byte at the end: what follows the empty line is the target's and stays in the socket.
      for (
        let byte = socket.read(1) as Buffer | null;
        byte !== null;
        byte = socket.read(1) as Buffer | null
      ) {
        head += byte.toString('latin1');
        if (head.endsWith('\r\n\r\n')) {
          settle();
          return;
        }
        if (head.length > MAX_HEAD_BYTES) {
          fail(notHttp());
          return;
        }
      }
    }
    function settle(): void {
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

/** The error that node:http has for an answer that is none. */
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

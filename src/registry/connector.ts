import type { OnReadOpts, Socket } from 'node:net';
import { buildConnector } from 'undici';
import { connectPatiently, openTunnel, type TlsOptions, tlsOptions } from './route.js';
import { type HttpProxy, portOf, proxyFor, type Transport } from './transport.js';

/**
 * undici's connector, with the registry's certificates, which are read for the first https
 * connection, and a read buffer if it is given one. https goes through a proxy in a tunnel; http
 * requests go to the proxy itself, which the connection's client treats as the origin.
 */
export function createConnector(
  transport: Transport,
  timeoutMs: number,
  onread?: OnReadOpts,
): buildConnector.connector {
  const reading = onread === undefined ? {} : { onread };
  const plain = patientConnector(timeoutMs, reading);
  let secure: Promise<buildConnector.connector> | undefined;

  async function secureConnector(): Promise<buildConnector.connector> {
    const tls = await tlsOptions(transport);
    const connect = patientConnector(timeoutMs, { ...tls, ...reading });
    return (target, callback) => {
      const proxy = proxyFor(originOfTarget(target), transport.environment);
      if (proxy === undefined) {
        connect(target, callback);
        return;
      }
      openTunnelTo(proxy, target, { timeoutMs, ...tls }).then(
        (httpSocket) => connect({ ...target, httpSocket }, callback),
        (error: Error) => callback(error, null),
      );
    };
  }

  return (target, callback) => {
    if (target.protocol !== 'https:') {
      plain(target, callback);
      return;
    }
    secure ??= secureConnector();
    secure.then(
      (connect) => connect(target, callback),
      (error: Error) => callback(error, null),
    );
  };
}

/** undici's connector, by `connectPatiently`. */
function patientConnector(
  timeoutMs: number,
  options: Partial<buildConnector.BuildOptions>,
): buildConnector.connector {
  const build = (more: object) => buildConnector({ ...options, ...more, timeout: 0 });
  const first = build({});
  return (target, callback) =>
    connectPatiently(
      (more, connected) => {
        const connect = more.autoSelectFamilyAttemptTimeout === undefined ? first : build(more);
        // The types do not say that it returns the socket.
        return connect(target, connected as buildConnector.Callback) as unknown as Socket;
      },
      timeoutMs,
      callback as (error: Error | null, socket: Socket | null) => void,
    );
}

type Target = Parameters<buildConnector.connector>[0];

function originOfTarget({ protocol, hostname, port }: Target): URL {
  const host = hostname.includes(':') ? `[${hostname}]` : hostname;
  return new URL(`${protocol}//${host}${port === '' ? '' : `:${port}`}`);
}

async function openTunnelTo(
  proxy: HttpProxy,
  target: Target,
  options: TlsOptions & { timeoutMs: number },
): Promise<Socket> {
  const origin = originOfTarget(target);
  return openTunnel(proxy, `${origin.hostname}:${portOf(origin)}`, options);
}

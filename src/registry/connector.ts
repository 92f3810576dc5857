import type { OnReadOpts, Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import { buildConnector } from 'undici';
import { connectPatiently, openTunnel } from './route.js';
import { type HttpProxy, portOf, proxyFor, type Transport } from './transport.js';

/**
 * undici's connectors, each with its own read buffer if it is given one. They share the registry's
 * certificates, which are read for the first https connection. https goes through a proxy in a
 * tunnel; http requests go to the proxy itself, which the connection's client treats as the origin.
 */
export function createConnectors(
  transport: Transport,
  timeoutMs: number,
): (onread?: OnReadOpts) => buildConnector.connector {
  let trusted: Promise<SecureContext> | undefined;
  const trust = () => {
    trusted ??= import('./trust.js').then(({ createTrust }) => createTrust(transport));
    return trusted;
  };
  return (onread) =>
    connectorWith({ transport, timeoutMs, trust, reading: onread === undefined ? {} : { onread } });
}

interface ConnectorOptions {
  readonly transport: Transport;
  readonly timeoutMs: number;
  readonly trust: () => Promise<SecureContext>;
  readonly reading: { readonly onread?: OnReadOpts };
}

function connectorWith({ transport, timeoutMs, trust, reading }: ConnectorOptions): buildConnector.connector {
  const plain = patientConnector(timeoutMs, reading);
  let secure: Promise<buildConnector.connector> | undefined;

  async function secureConnector(): Promise<buildConnector.connector> {
    const verified = { secureContext: await trust(), rejectUnauthorized: transport.tlsVerify };
    const connect = patientConnector(timeoutMs, { ...verified, ...reading });
    return (target, callback) => {
      const proxy = proxyFor(originOfTarget(target), transport.environment);
      if (proxy === undefined) {
        connect(target, callback);
        return;
      }
      openTunnelTo(proxy, target, { timeoutMs, ...verified }).then(
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
  options: { timeoutMs: number; secureContext: SecureContext; rejectUnauthorized: boolean },
): Promise<Socket> {
  const origin = originOfTarget(target);
  return openTunnel(proxy, `${origin.hostname}:${portOf(origin)}`, options);
}

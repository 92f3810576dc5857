import type { Socket } from 'node:net';
import type { SecureContext } from 'node:tls';
import { buildConnector } from 'undici';
import { hasSlowAddress } from './network-error.js';
import { type HttpProxy, portOf, proxyFor } from './proxy.js';
import { addressTimeoutMs } from './route.js';
import type { Transport } from './transport.js';

/**
 * undici's connector, with what the registry is trusted by once the first https connection asks for it. https goes through a
 * proxy in a tunnel; http is asked of the proxy itself, which the connection's client takes for the origin.
 */
export function createConnector(transport: Transport, timeout: number): buildConnector.connector {
  const plain = patientConnector({ timeout });
  let secure: Promise<buildConnector.connector> | undefined;

  async function secureConnector(): Promise<buildConnector.connector> {
    const { createTrust } = await import('./trust.js');
    const secureContext = createTrust(transport);
    const verified = { secureContext, rejectUnauthorized: transport.tlsVerify };
    const connect = patientConnector({ timeout, ...verified });
    return (target, callback) => {
      const proxy = proxyFor(originOfTarget(target), transport.environment);
      if (proxy === undefined) {
        connect(target, callback);
        return;
      }
      openTunnelTo(proxy, target, { timeoutMs: timeout, ...verified }).then(
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

/** A connector that gives slow addresses more time where Node's 250 ms each were too short. */
function patientConnector(
  options: buildConnector.BuildOptions & { timeout: number },
): buildConnector.connector {
  const quick = buildConnector(options);
  const autoSelectFamilyAttemptTimeout = addressTimeoutMs(options.timeout);
  const patient = buildConnector({ ...options, autoSelectFamilyAttemptTimeout });
  return (target, callback) =>
    quick(target, (...result) => {
      if (hasSlowAddress(result[0])) patient(target, callback);
      else callback(...result);
    });
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
  const { openTunnel } = await import('./tunnel.js');
  const origin = originOfTarget(target);
  return openTunnel(proxy, `${origin.hostname}:${portOf(origin)}`, options);
}

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PullError } from '../format/error.js';
import { createLink } from './body.js';
import { createGatekeeper, TOKEN_LIFE_MS, type TokenRule } from './exchange.js';
import { createFaults, type FaultRule } from './faults.js';
import { openLayout } from './layout-reader.js';
import { createHosts, type RequestRecord, type ServerState, serveRequest } from './serve-request.js';

export interface RegistryOptions {
  /** Directory of the OCI image layout. */
  readonly layout: string;
  /** 0, the default, chooses a free port. */
  readonly port?: number;
  /** The address to listen on; default 127.0.0.1. */
  readonly host?: string;
  /** Further host names that requests may have, for tests with a proxy. */
  readonly names?: readonly string[];
  /** Delay before each answer. */
  readonly latencyMs?: number;
  /** Body bytes per second on each connection. */
  readonly ratePerConnectionBytes?: number;
  /** Body bytes per second over all connections together. */
  readonly rateBytes?: number;
  readonly faults?: readonly FaultRule[];
  /** Requires a bearer token for every path under /v2/. */
  readonly requireToken?: TokenRule;
  /** Called after each answer, also if it failed. */
  readonly onRequest?: (record: RequestRecord) => void;
}

export interface SandboxRegistry {
  /** `127.0.0.1:PORT`, the registry of references. */
  readonly host: string;
  /** `http://127.0.0.1:PORT`. */
  readonly origin: string;
  /** The first requests in order of arrival, up to 16 MiB of records. */
  readonly requests: readonly RequestRecord[];
  /** Closes all connections and stops listening. */
  close(): Promise<void>;
}

/** Longer than any pause within a pull: closing an idle connection costs the client a retry. */
const KEEP_ALIVE_MS = 120_000;

/**
 * Starts a read-only registry for an OCI image layout (distribution-spec v2, pull) under any
 * repository name; resolves when it listens. If a fault redirects, it listens on a second port, the
 * second origin.
 * @throws PullError `option-malformed` if there is no layout or it cannot listen on the address;
 *   `metadata-malformed` for a malformed index.json
 */
export async function startRegistry(options: RegistryOptions): Promise<SandboxRegistry> {
  const { faults = [], host = '127.0.0.1', names = [], requireToken, rateBytes } = options;
  const layout = openLayout(options.layout);
  const nextFault = createFaults(faults);
  const main = await listen(options.port ?? 0, host);
  const redirects = faults.some(({ action }) => 'redirect' in action);
  const signed = redirects ? await listen(0, host) : undefined;
  const state: ServerState = {
    registry: {
      layout,
      nextFault,
      signedPort: signed?.port,
      gatekeeper: createGatekeeper(),
      requireToken,
      tokenLifeMs: tokenLifeMs(requireToken, faults),
    },
    hosts: createHosts([host, ...names]),
    records: [],
    recordBytes: 0,
    connections: new WeakMap(),
    connectionCount: 0,
    latencyMs: options.latencyMs ?? 0,
    ratePerConnectionBytes: options.ratePerConnectionBytes,
    sharedLinks: rateBytes === undefined ? [] : [createLink(rateBytes)],
    onRequest: options.onRequest,
  };
  main.server.on('request', (message, response) => void serveRequest(state, false, message, response));
  signed?.server.on('request', (message, response) => void serveRequest(state, true, message, response));
  const name = `${host.includes(':') ? `[${host}]` : host}:${main.port}`;
  return {
    host: name,
    origin: `http://${name}`,
    requests: state.records,
    close: async () => {
      await Promise.all([main, signed].map((listener) => listener && closeServer(listener.server)));
    },
  };
}

/** Returns the shortest configured lifetime, so that `expires_in` is right for every token. */
function tokenLifeMs(requireToken: TokenRule | undefined, faults: readonly FaultRule[]): number {
  const challenged = faults.map(({ action }) =>
    'challenge' in action ? action.challenge.expiresAfterMs : undefined,
  );
  const lives = [requireToken?.expiresAfterMs, ...challenged].filter((life) => life !== undefined);
  return lives.length === 0 ? TOKEN_LIFE_MS : Math.min(...lives);
}

/** Starts to listen, without a request handler yet. */
async function listen(port: number, host: string): Promise<{ server: Server; port: number }> {
  const server = createServer({ noDelay: true, keepAliveTimeout: KEEP_ALIVE_MS });
  try {
    server.listen(port, host);
    await once(server, 'listening');
  } catch (cause) {
    const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new PullError('option-malformed', `cannot listen on ${host}:${port}: ${reason}`, {
      hint: 'port 0 chooses a free port',
      cause,
    });
  }
  return { server, port: (server.address() as AddressInfo).port };
}

async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  const closed = once(server, 'close');
  server.close();
  server.closeAllConnections();
  await closed;
}

import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { PullError } from '../format/error.js';
import { createGatekeeper } from './access.js';
import { errorAnswer } from './answers.js';
import { sendBody } from './body.js';
import {
  chooseAnswer,
  type Registry,
  type RegistryRequest,
  TOKEN_LIFE_MS,
  type TokenRule,
} from './exchange.js';
import { createFaults, type FaultRule } from './faults.js';
import { openLayout } from './layout-reader.js';
import { shapeAnswer, type Transmission } from './shape-answer.js';
import { createLink, type Link } from './shaping.js';

export interface RegistryOptions {
  /** Directory of the OCI image layout. */
  readonly layout: string;
  /** 0, the default, takes a free one. */
  readonly port?: number;
  /** The address to listen on: 127.0.0.1 unless told. */
  readonly host?: string;
  /** Waited before each answer. */
  readonly latencyMs?: number;
  /** Body bytes per second on each connection. */
  readonly ratePerConnectionBytes?: number;
  /** Body bytes per second over all connections together. */
  readonly rateBytes?: number;
  readonly faults?: readonly FaultRule[];
  /** Every path under /v2/ asks for a bearer token. */
  readonly requireToken?: TokenRule;
  /** Called when an answer is over, however it ended. */
  readonly onRequest?: (record: RequestRecord) => void;
}

/** One request as the server saw it; `status` and `sentBytes` grow while it is being answered. */
export interface RequestRecord {
  readonly method: string;
  /** As it was sent, without the query: that may hold a signature. */
  readonly path: string;
  /** Bytes [start, end) of the blob that a Range header asked for, else null. */
  start: number | null;
  end: number | null;
  /** 0 when no answer was given. */
  status: number;
  /** Bytes of the body that the kernel took. */
  sentBytes: number;
  /** Which connection it came on, counted from 1. */
  readonly connection: number;
}

export interface SandboxRegistry {
  /** `127.0.0.1:PORT`, as it stands in a reference. */
  readonly host: string;
  /** `http://127.0.0.1:PORT`. */
  readonly origin: string;
  /** The first 100,000 requests in the order of their arrival. */
  readonly requests: readonly RequestRecord[];
  /** Ends every connection and stops listening. */
  close(): Promise<void>;
}

/** About 20 MB: a day of a benchmark must not fill the memory. */
const MAX_RECORDS = 100_000;
/** Longer than any pause within a pull: an idle connection that the server closes costs the client a retry. */
const KEEP_ALIVE_MS = 120_000;

/** What changes while the server runs. */
interface ServerState {
  readonly options: RegistryOptions;
  readonly registry: Registry;
  readonly records: RequestRecord[];
  readonly sharedLinks: readonly Link[];
  readonly connections: WeakMap<Socket, Connection>;
  connectionCount: number;
}

interface Connection {
  readonly number: number;
  readonly links: readonly Link[];
}

/**
 * Starts a read-only registry over an OCI image layout (distribution-spec v2, pull), which answers for any repository
 * name; resolves when it listens. With a redirect among the faults it listens on a second port, the other origin.
 * @throws PullError `option-malformed` for no layout, or an address it cannot have;
 * `metadata-malformed` for a malformed index.json
 */
export async function startRegistry(options: RegistryOptions): Promise<SandboxRegistry> {
  const rules = options.faults ?? [];
  const layout = openLayout(options.layout);
  const host = options.host ?? '127.0.0.1';
  const servers: Server[] = [];
  let state: ServerState | undefined;
  const open = async (port: number, signedOrigin: boolean): Promise<number> => {
    const server = createServer({ noDelay: true, keepAliveTimeout: KEEP_ALIVE_MS });
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      if (state !== undefined) void serve(state, signedOrigin, request, response);
    });
    servers.push(server);
    return listen(server, port, host);
  };
  const redirects = rules.some(({ action }) => 'redirect' in action);
  const signedPort = redirects ? await open(0, true) : undefined;
  state = createState(options, {
    layout,
    gatekeeper: createGatekeeper(),
    nextFault: createFaults(rules),
    requireToken: options.requireToken,
    tokenLifeMs: tokenLifeMs(options.requireToken, rules),
    signedPort,
  });
  const { records } = state;
  const closeAll = async (): Promise<void> => {
    await Promise.all(servers.map(closeServer));
  };
  try {
    const port = await open(options.port ?? 0, false);
    const name = `${host.includes(':') ? `[${host}]` : host}:${port}`;
    return { host: name, origin: `http://${name}`, requests: records, close: closeAll };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

function createState(options: RegistryOptions, registry: Registry): ServerState {
  return {
    options,
    registry,
    records: [],
    sharedLinks: options.rateBytes === undefined ? [] : [createLink(options.rateBytes)],
    connections: new WeakMap(),
    connectionCount: 0,
  };
}

/** The shortest life that anything asks for: `expires_in` stays honest. */
function tokenLifeMs(requireToken: TokenRule | undefined, rules: readonly FaultRule[]): number {
  const lives = rules.map(({ action }) =>
    'challenge' in action ? action.challenge.expiresAfterMs : undefined,
  );
  return Math.min(...[requireToken?.expiresAfterMs, ...lives].map((life) => life ?? TOKEN_LIFE_MS));
}

async function listen(server: Server, port: number, host: string): Promise<number> {
  try {
    server.listen(port, host);
    await once(server, 'listening');
  } catch (cause) {
    const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new PullError('option-malformed', `cannot listen on ${host}:${port}: ${reason}`, {
      hint: 'port 0 takes one that is free',
      cause,
    });
  }
  return (server.address() as AddressInfo).port;
}

async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  const closed = once(server, 'close');
  server.close();
  server.closeAllConnections();
  await closed;
}

async function serve(
  state: ServerState,
  signedOrigin: boolean,
  message: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const connection = connectionOf(state, message.socket);
  const request = readRequest(message, signedOrigin);
  const record = startRecord(state, message, connection.number);
  response.once('close', () => state.options.onRequest?.(record));
  try {
    const { answer, action } = chooseAnswer(state.registry, request, Date.now());
    const ifRange = message.headers['if-range'];
    const shaped = shapeAnswer(
      answer,
      { ...request, ifRange: typeof ifRange === 'string' ? ifRange : undefined },
      action,
    );
    record.start = shaped.asked?.start ?? null;
    record.end = shaped.asked?.end ?? null;
    const { latencyMs = 0 } = state.options;
    if (latencyMs > 0) await sleep(latencyMs, undefined, { ref: false });
    await transmit(response, shaped, connection.links, record);
  } catch (error) {
    fail(response, record, error);
  }
}

function connectionOf(state: ServerState, socket: Socket): Connection {
  const known = state.connections.get(socket);
  if (known !== undefined) return known;
  const { ratePerConnectionBytes: rate } = state.options;
  const own = rate === undefined ? [] : [createLink(rate)];
  const connection = { number: ++state.connectionCount, links: [...own, ...state.sharedLinks] };
  state.connections.set(socket, connection);
  return connection;
}

function startRecord(state: ServerState, message: IncomingMessage, connection: number): RequestRecord {
  const [path = ''] = (message.url ?? '').split('?', 1);
  const record = {
    method: message.method ?? '',
    path,
    start: null,
    end: null,
    status: 0,
    sentBytes: 0,
    connection,
  };
  if (state.records.length < MAX_RECORDS) state.records.push(record);
  return record;
}

function readRequest(message: IncomingMessage, signedOrigin: boolean): RegistryRequest {
  const url = message.url ?? '';
  const cut = url.indexOf('?');
  const { localAddress = '', localPort = 0 } = message.socket;
  // A name that is not plainly one would end up inside quotes of a header.
  const [, named] = /^([\w.-]+|\[[0-9a-fA-F:]+\])(?::\d+)?$/.exec(message.headers.host ?? '') ?? [];
  return {
    method: message.method ?? '',
    path: decodePath(cut < 0 ? url : url.slice(0, cut)),
    query: new URLSearchParams(cut < 0 ? '' : url.slice(cut)),
    range: message.headers.range,
    authorization: message.headers.authorization,
    hostname: named ?? (localAddress.includes(':') ? `[${localAddress}]` : localAddress),
    port: localPort,
    signedOrigin,
  };
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

async function transmit(
  response: ServerResponse,
  shaped: Transmission,
  links: readonly Link[],
  record: RequestRecord,
): Promise<void> {
  const { cut } = shaped;
  if (cut?.silent !== true) {
    record.status = shaped.status;
    response.writeHead(shaped.status, {
      'Docker-Distribution-Api-Version': 'registry/2.0',
      ...shaped.headers,
    });
    const onSent = (bytes: number): void => {
      record.sentBytes += bytes;
    };
    const whole = await sendBody(response, { ...shaped, links, onSent });
    if (!whole) response.destroy();
  }
  // A stalled answer is left as it is, until the client or close() ends the connection.
  if (cut?.how === 'close') response.destroy();
  else if (cut === undefined) response.end();
}

/** A file that cannot be read, say: 500 while nothing was sent, else the connection is closed. */
function fail(response: ServerResponse, record: RequestRecord, error: unknown): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const message = error instanceof Error ? error.message : String(error);
  const { headers, body } = errorAnswer(500, 'UNAVAILABLE', message);
  record.status = 500;
  response.writeHead(500, headers).end(body);
}

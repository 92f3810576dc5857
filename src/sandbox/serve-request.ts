import type { IncomingMessage, ServerResponse } from 'node:http';
import { isIP, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { errorAnswer, shapeAnswer, type Transmission } from './answers.js';
import { createLink, type Link, sendBody } from './body.js';
import { chooseAnswer, type Registry, type RegistryRequest } from './exchange.js';

/** A request as the server saw it; `status` and `sentBytes` change while it is answered. */
export interface RequestRecord {
  readonly method: string;
  /** As sent, without the query, which may have a signature. */
  readonly path: string;
  /** The range [start, end) of the blob in the Range header, else null. */
  start: number | null;
  end: number | null;
  /** 0 without an answer. */
  status: number;
  /** Bytes of the body that the kernel accepted. */
  sentBytes: number;
  /** Number of the connection, from 1. */
  readonly connection: number;
}

/** The state and options of a running server. */
export interface ServerState {
  readonly registry: Registry;
  readonly hosts: Hosts;
  readonly records: RequestRecord[];
  /** Approximate memory of the records. */
  recordBytes: number;
  readonly connections: WeakMap<Socket, Connection>;
  connectionCount: number;
  readonly latencyMs: number;
  readonly ratePerConnectionBytes: number | undefined;
  /** Links that all connections share. */
  readonly sharedLinks: readonly Link[];
  readonly onRequest: ((record: RequestRecord) => void) | undefined;
}

interface Connection {
  readonly number: number;
  readonly links: readonly Link[];
}

/** About 50,000 requests of pulls. Bounds the memory of long benchmarks and long URLs. */
const MAX_RECORD_BYTES = 16 * 2 ** 20;
/** Approximate memory of a record without its path. */
const RECORD_BYTES = 200;

/**
 * Answers one request; resolves when the answer is sent or the connection closed, and never
 * rejects.
 */
export async function serveRequest(
  state: ServerState,
  signedOrigin: boolean,
  message: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const connection = connectionOf(state, message.socket);
  const request = readRequest(message, signedOrigin);
  const record = startRecord(state, message, connection.number);
  response.once('close', () => state.onRequest?.(record));
  if (!state.hosts(message)) return refuseHost(response, record);
  try {
    const { answer, action } = chooseAnswer(state.registry, request, Date.now());
    const ifRange = message.headers['if-range'];
    const shaped = shapeAnswer(
      answer,
      { ...request, ifRange: typeof ifRange === 'string' ? ifRange : undefined },
      action,
    );
    record.start = shaped.requested?.start ?? null;
    record.end = shaped.requested?.end ?? null;
    const delayMs =
      state.latencyMs + (action !== undefined && 'firstByteAfterMs' in action ? action.firstByteAfterMs : 0);
    if (delayMs > 0) await sleep(delayMs, undefined, { ref: false });
    await transmit(response, shaped, connection.links, record);
  } catch (error) {
    fail(response, record, error);
  }
}

/** RFC 9110, section 15.5.20. */
function refuseHost(response: ServerResponse, record: RequestRecord): void {
  const { headers, body } = errorAnswer(421, 'UNSUPPORTED', 'this registry has another name');
  record.status = 421;
  response.writeHead(421, headers).end(body);
}

function connectionOf(state: ServerState, socket: Socket): Connection {
  const known = state.connections.get(socket);
  if (known !== undefined) return known;
  const { ratePerConnectionBytes: rate } = state;
  const limited = rate === undefined ? [] : [createLink(rate)];
  const connection = { number: ++state.connectionCount, links: [...limited, ...state.sharedLinks] };
  state.connections.set(socket, connection);
  return connection;
}

function startRecord(state: ServerState, message: IncomingMessage, connection: number): RequestRecord {
  const [url = ''] = (message.url ?? '').split('?', 1);
  // Copies the path: a slice would keep the complete URL in memory.
  const path = Buffer.from(url).toString();
  const record = {
    method: message.method ?? '',
    path,
    start: null,
    end: null,
    status: 0,
    sentBytes: 0,
    connection,
  };
  const bytes = RECORD_BYTES + 2 * path.length;
  if (state.recordBytes + bytes <= MAX_RECORD_BYTES) {
    state.recordBytes += bytes;
    state.records.push(record);
  }
  return record;
}

function readRequest(message: IncomingMessage, signedOrigin: boolean): RegistryRequest {
  const url = message.url ?? '';
  const cut = url.indexOf('?');
  const { localAddress = '', localPort = 0 } = message.socket;
  // Only a plain name, as it becomes part of a quoted string in a header.
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
  const { cut, bytesPerSecond } = shaped;
  if (cut?.beforeHeaders !== true) {
    record.status = shaped.status;
    response.writeHead(shaped.status, {
      'Docker-Distribution-Api-Version': 'registry/2.0',
      ...shaped.headers,
    });
    const onSent = (bytes: number): void => {
      record.sentBytes += bytes;
    };
    const drip = bytesPerSecond === undefined ? [] : [createLink(bytesPerSecond)];
    const isComplete = await sendBody(response, { ...shaped, links: [...drip, ...links], onSent });
    if (!isComplete) response.destroy();
  }
  // A stalled answer stays open until the client or close() ends the connection.
  if (cut?.how === 'close') response.destroy();
  else if (cut === undefined) response.end();
}

/**
 * Answers 500 after an error, for instance of a file, or closes the connection if the headers are
 * sent.
 */
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

/** Wildcard addresses. Behind a NAT, the server does not know the address that the client used. */
const ALL_ADDRESSES = ['0.0.0.0', '::'];

/**
 * Returns whether the Host header of a request names this server. Without the check, a web page
 * whose own name resolves to this machine (DNS rebinding) could read the registry through a
 * browser.
 */
type Hosts = (message: IncomingMessage) => boolean;

/** Returns the check for a server that listens on `names` or is known by them. */
export function createHosts(names: readonly string[]): Hosts {
  const known = new Set(names.map((name) => name.toLowerCase()));
  const everywhere = ALL_ADDRESSES.some((address) => known.has(address));
  return ({ headers, socket }) => {
    // Optional in HTTP/1.0, which no browser speaks.
    if (headers.host === undefined) return true;
    const name = hostname(headers.host);
    if (name === undefined) return false;
    if (known.has(name) || isLoopback(name)) return true;
    // A rebinding page needs a name, not an address.
    return everywhere ? isIP(name) !== 0 : name === plainAddress(socket.localAddress);
  };
}

/** Returns the name in `NAME:PORT` or `[ADDRESS]:PORT` in lower case, or undefined if malformed. */
function hostname(host: string): string | undefined {
  const [, address, name] = /^(?:\[([0-9a-f:.]+)\]|([^:@/\s[\]]+))(?::\d*)?$/i.exec(host) ?? [];
  return (address ?? name)?.toLowerCase();
}

/** RFC 6761, section 6.3; RFC 1122, section 3.2.1.3. */
function isLoopback(name: string): boolean {
  return /^(?:.+\.)?localhost$/.test(name) || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

/** Removes the prefix of an IPv4-mapped address: `::ffff:192.0.2.1`. */
function plainAddress(address = ''): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '');
}

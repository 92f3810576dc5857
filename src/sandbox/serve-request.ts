import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Hosts } from './access.js';
import { errorAnswer } from './answers.js';
import { createLink, type Link, sendBody } from './body.js';
import { chooseAnswer, type Registry, type RegistryRequest } from './exchange.js';
import { shapeAnswer, type Transmission } from './shape-answer.js';

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

/** What changes while a server runs, and how it was told to answer. */
export interface ServerState {
  readonly registry: Registry;
  readonly hosts: Hosts;
  readonly records: RequestRecord[];
  /** About what the records take. */
  recordBytes: number;
  readonly connections: WeakMap<Socket, Connection>;
  connectionCount: number;
  readonly latencyMs: number;
  readonly ratePerConnectionBytes: number | undefined;
  /** The links that all connections go over. */
  readonly sharedLinks: readonly Link[];
  readonly onRequest: ((record: RequestRecord) => void) | undefined;
}

interface Connection {
  readonly number: number;
  readonly links: readonly Link[];
}

/** 50,000 requests as a pull sends them: neither a day of a benchmark nor long URLs fill the memory. */
const MAX_RECORD_BYTES = 16 * 2 ** 20;
/** What a record takes besides its path. */
const RECORD_BYTES = 200;

/** Answers one request; resolves when all of it was sent or the connection is gone, never rejects. */
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
    record.start = shaped.asked?.start ?? null;
    record.end = shaped.asked?.end ?? null;
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
  const own = rate === undefined ? [] : [createLink(rate)];
  const connection = { number: ++state.connectionCount, links: [...own, ...state.sharedLinks] };
  state.connections.set(socket, connection);
  return connection;
}

function startRecord(state: ServerState, message: IncomingMessage, connection: number): RequestRecord {
  const [url = ''] = (message.url ?? '').split('?', 1);
  // A copy: a slice would keep the whole URL.
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
  const { cut, bytesPerSecond } = shaped;
  if (cut?.silent !== true) {
    record.status = shaped.status;
    response.writeHead(shaped.status, {
      'Docker-Distribution-Api-Version': 'registry/2.0',
      ...shaped.headers,
    });
    const onSent = (bytes: number): void => {
      record.sentBytes += bytes;
    };
    const drip = bytesPerSecond === undefined ? [] : [createLink(bytesPerSecond)];
    const whole = await sendBody(response, { ...shaped, links: [...drip, ...links], onSent });
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

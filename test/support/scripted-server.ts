/** Small HTTP servers whose answers a test writes, and the events of a range job. */
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server as NetServer, Socket } from 'node:net';
import type { RangeEvents } from '../../src/registry/range-client.js';
import type { KeyPair } from './certificate.js';

interface SeenRequest {
  readonly url: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly accept: string | undefined;
}

export interface ScriptedServer {
  readonly origin: string;
  readonly host: string;
  /** Every request so far, in order. */
  readonly requests: SeenRequest[];
  /** How many connections were made so far. */
  connections(): number;
  closeConnections(): void;
  close(): Promise<void>;
}

/** `nth` counts the requests of this server from 1. */
export type Answering = (request: IncomingMessage, response: ServerResponse, nth: number) => void;

/** A server on a free port of 127.0.0.1; with `tls`, https with that key and certificate. */
export async function startServer(answer: Answering, tls?: KeyPair): Promise<ScriptedServer> {
  const requests: SeenRequest[] = [];
  let connections = 0;
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    const { range, authorization, accept } = request.headers;
    requests.push({ url: request.url ?? '', range, authorization, accept });
    answer(request, response, requests.length);
  };
  const server: Server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  server.on(tls === undefined ? 'connection' : 'secureConnection', () => {
    connections++;
  });
  const host = await listen(server);
  return {
    host,
    origin: `${tls === undefined ? 'http' : 'https'}://${host}`,
    requests,
    connections: () => connections,
    closeConnections: () => server.closeAllConnections(),
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}

/** Listens on a free port of 127.0.0.1 and returns `host:port`. */
export async function listen(server: NetServer): Promise<string> {
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Returns `sizeBytes` bytes without repetitions. */
export function patternBytes(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (let at = 0, value = 1; at < sizeBytes; at++) {
    value = (Math.imul(value, 1664525) + 1013904223) >>> 0;
    bytes[at] = value >>> 24;
  }
  return bytes;
}

/** The half-open range a request asks for. */
export function askedRange(request: IncomingMessage): { start: number; end: number } {
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  if (match === null) throw new Error(`no range in ${String(request.headers.range)}`);
  return { start: Number(match[1]), end: Number(match[2]) + 1 };
}

/** Writes the head of a correct 206 and returns the bytes that belong behind it. */
export function beginRange(request: IncomingMessage, response: ServerResponse, blob: Buffer): Buffer {
  const { start, end } = askedRange(request);
  response.writeHead(206, {
    'content-range': `bytes ${start}-${end - 1}/${blob.length}`,
    'content-length': end - start,
  });
  return blob.subarray(start, end);
}

/** The correct answer to a range request. */
export function answerRange(request: IncomingMessage, response: ServerResponse, blob: Buffer): void {
  response.end(beginRange(request, response, blob));
}

/** Sends these bytes and closes the connection. */
export function breakAfter(response: ServerResponse, bytes: Buffer): void {
  response.write(bytes, () => {
    (response.socket as Socket).destroySoon();
  });
}

export interface RecordedEvents extends RangeEvents {
  readonly misses: string[];
  /** Their hints. */
  readonly hints: (string | undefined)[];
  /** Lines about requests. */
  readonly lines: string[];
  /** What `authorization` was called with, in order. */
  readonly authorizations: (string | undefined)[];
  receivedBytes: number;
  requests: number;
  pauses: number;
  pausesOpen: number;
}

/** Returns events that are recorded; after a miss the range goes on at once unless `miss` says otherwise. */
export function recordEvents(
  more: {
    authorize?: (stale: string | undefined, endpoint: number) => string | undefined;
    miss?: (message: string) => void;
    /** By endpoint. */
    origins?: readonly string[];
  } = {},
): RecordedEvents {
  const events: RecordedEvents = {
    misses: [],
    hints: [],
    lines: [],
    authorizations: [],
    receivedBytes: 0,
    requests: 0,
    pauses: 0,
    pausesOpen: 0,
    received: (bytes) => {
      events.receivedBytes += bytes;
    },
    requested: () => {
      events.requests++;
    },
    log: (line) => {
      events.lines.push(line);
    },
    miss: async (message, failed) => {
      events.misses.push(message);
      events.hints.push(failed?.hint);
      more.miss?.(message);
    },
    authorization: async (stale, endpoint) => {
      events.authorizations.push(stale);
      return more.authorize?.(stale, endpoint);
    },
    originOf: async (endpoint) => more.origins?.[endpoint] ?? assert.fail(`endpoint ${endpoint} is unknown`),
    pause: () => {
      events.pauses++;
      events.pausesOpen++;
      return () => {
        events.pausesOpen--;
      };
    },
  };
  return events;
}

import type { OnReadOpts, Socket } from 'node:net';
import { Client } from 'undici';
import { PullError } from '../format/error.js';
import { createConnectors } from './connector.js';
import { proxyError } from './network-error.js';
import { MAX_HEADER_BYTES } from './response-limits.js';
import { type HttpProxy, proxyFor, type Transport } from './transport.js';

/** Storage origins behind redirects may change with every signed URL; idle ones above this are closed. */
const MAX_ORIGINS = 16;

export interface ConnectionsOptions {
  /** Connections to one origin at a time. */
  readonly connections: number;
  readonly connectTimeoutMs: number;
  readonly transport: Transport;
  /** Each connection reads into one buffer again and again: the function that takes bytes must be done with them when it returns. */
  readonly reusesBuffers?: boolean | undefined;
}

/** One connection at a time to one origin, used by one request at a time, kept alive in between. */
export interface Connection {
  readonly origin: string;
  readonly client: Client;
  /** Stands before each path: the origin, when a proxy is asked for it. */
  readonly pathPrefix: string;
  /** What a proxy wants to see besides. */
  readonly proxyHeaders: Readonly<Record<string, string>>;
  /** Responses that began on the present connection; above 0 it is reused. */
  responses: number;
  /** A body is coming whose bytes are not kept. */
  isBody: boolean;
  /** Reads no more from the connection until `resume`; it buffers at most one chunk of 64 KiB by then. */
  pause(): void;
  /** `isOver`: the request was aborted and undici closes the connection: its buffered bytes are not read. */
  resume(isOver?: boolean): void;
}

/** The connections of one worker. */
export interface Connections {
  /** A connection to `origin`, at once or when one is released. Rejects (`internal`) once the connections are closed. */
  acquire(origin: string): Promise<Connection>;
  release(connection: Connection): void;
  /** Closes every connection; requests under way fail. */
  close(): Promise<void>;
}

interface OriginConnections {
  readonly all: Connection[];
  readonly free: Connection[];
  readonly waiting: { resolve(connection: Connection): void; reject(error: PullError): void }[];
}

/**
 * One undici Client a connection, not an Agent: only so is it known which request runs on a reused connection, and
 * only so can a connection be paused without `controller.pause()`, after which undici 7 throws an AssertionError that
 * nobody can catch when a server that said `Connection: close` closes (nodejs/undici#5360, mended in 8).
 */
export function createConnections(options: ConnectionsOptions): Connections {
  const origins = new Map<string, OriginConnections>();
  let closed = false;
  const connectors = createConnectors(options.transport, options.connectTimeoutMs);

  return {
    acquire(origin) {
      if (closed) return Promise.reject(closedError());
      let atOrigin = origins.get(origin);
      if (atOrigin === undefined) {
        closeIdleOrigins(origins);
        atOrigin = { all: [], free: [], waiting: [] };
        origins.set(origin, atOrigin);
      }
      // The one released last is the warmest.
      const free = atOrigin.free.pop();
      if (free !== undefined) return Promise.resolve(free);
      if (atOrigin.all.length < options.connections) {
        const proxy = proxyFor(new URL(origin), options.transport.environment);
        const connection = createConnection(origin, connectors, {
          proxy,
          reusesBuffers: options.reusesBuffers === true,
        });
        atOrigin.all.push(connection);
        return Promise.resolve(connection);
      }
      const { waiting } = atOrigin;
      return new Promise((resolve, reject) => {
        waiting.push({ resolve, reject });
      });
    },
    release(connection) {
      const atOrigin = origins.get(connection.origin);
      const next = atOrigin?.waiting.shift();
      if (next === undefined) atOrigin?.free.push(connection);
      else next.resolve(connection);
    },
    async close() {
      closed = true;
      const connections = [...origins.values()];
      origins.clear();
      for (const { reject } of connections.flatMap(({ waiting }) => waiting)) reject(closedError());
      await Promise.all(connections.flatMap(({ all }) => all.map(({ client }) => client.destroy())));
    },
  };
}

function closedError(): PullError {
  return new PullError('internal', 'the range client is closed');
}

function closeIdleOrigins(origins: Map<string, OriginConnections>): void {
  for (const [origin, connections] of origins) {
    if (origins.size < MAX_ORIGINS) return;
    if (connections.free.length < connections.all.length) continue;
    origins.delete(origin);
    for (const { client } of connections.all) void client.destroy();
  }
}

function createConnection(
  origin: string,
  connectors: ReturnType<typeof createConnectors>,
  { proxy, reusesBuffers }: { readonly proxy: HttpProxy | undefined; readonly reusesBuffers: boolean },
): Connection {
  let paused = false;
  const reused = reusesBuffers ? new ReusedBuffer(() => paused) : undefined;
  const connect = connectors(reused?.onread);
  let socket: Socket | undefined;
  const asked = origin.startsWith('http:') ? proxy : undefined;
  const client = new Client(asked?.origin ?? origin, {
    maxHeaderSize: MAX_HEADER_BYTES,
    // transfer.ts watches both, and does not count pauses.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: (target, callback) => {
      connect(target, (...[error, connected]) => {
        if (error !== null) {
          callback(asked === undefined ? error : proxyError(error, asked.host), null);
          return;
        }
        socket = connected;
        connection.responses = 0;
        if (reused === undefined) gate(connected, () => paused);
        else reused.serve(connected, () => connection.isBody);
        callback(null, connected);
      });
    },
  });
  const connection: Connection = {
    origin,
    client,
    pathPrefix: asked === undefined ? '' : origin,
    proxyHeaders: asked === undefined ? {} : headersFor(asked, origin),
    responses: 0,
    isBody: false,
    pause() {
      paused = true;
    },
    resume(isOver = false) {
      if (!paused) return;
      paused = false;
      if (isOver) return;
      // Wakes undici's reader: the event that announced the waiting bytes has gone by.
      if (socket?.destroyed === false) socket.emit('readable');
    },
  };
  return connection;
}

function headersFor({ authorization }: HttpProxy, origin: string): Record<string, string> {
  return {
    host: new URL(origin).host,
    ...(authorization === undefined ? {} : { 'proxy-authorization': authorization }),
  };
}

/** Makes `read()` find nothing while `isPaused`; `read(0)`, with which streams move their own machinery, goes through. */
function gate(socket: Socket, isPaused: () => boolean): void {
  const read = socket.read;
  socket.read = (sizeBytes?: number): unknown =>
    sizeBytes !== 0 && isPaused() ? null : read.call(socket, sizeBytes);
}

/** What one read of a socket brings at most: four times what Node reads by itself, so that there are fewer of them. 16 connections have 4 MiB. */
const BUFFER_BYTES = 256 * 1024;

/** RFC 9112, section 2.1. */
const HEAD_END = '\r\n\r\n';

/**
 * One buffer that a connection's sockets read into again and again, in place of a new one for each read. undici asks a socket for what it has
 * read, which a socket with `onread` does not answer: `serve` makes it do so. The bytes that it gives are good until the next read.
 */
class ReusedBuffer {
  readonly onread: OnReadOpts;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  readonly #isPaused: () => boolean;
  #socket: Socket | undefined;
  /** The bytes of the buffer that have not been taken. */
  #start = 0;
  #end = 0;
  /** Node reads no more until it is asked to. */
  #isStopped = false;

  /** `isPaused`: nothing is to be read. */
  constructor(isPaused: () => boolean) {
    this.#isPaused = isPaused;
    this.onread = { buffer: this.#buffer, callback: (bytes) => this.#filled(bytes) };
  }

  /**
   * Makes `read()` of a connected socket give what is in the buffer. Unless `isBody` that is a copy, as undici keeps what it has of a head; what
   * comes behind the head is not copied with it: of a copy of 800 MB that would be 25 MB, for V8 to collect some day.
   */
  serve(socket: Socket, isBody: () => boolean): void {
    this.#socket = socket;
    this.#end = this.#start;
    this.#isStopped = false;
    const read = socket.read;
    socket.read = (sizeBytes?: number): unknown => {
      if (sizeBytes === 0) return read.call(socket, 0);
      if (this.#isPaused()) return null;
      if (this.#start < this.#end)
        return isBody() ? this.#take(this.#end) : Buffer.from(this.#take(this.#headEnd()));
      if (this.#isStopped) {
        this.#isStopped = false;
        read.call(socket, 0);
      }
      return null;
    };
  }

  #take(end: number): Buffer {
    const bytes = this.#buffer.subarray(this.#start, end);
    this.#start = end;
    return bytes;
  }

  /** Where a head ends that lies in the buffer; the end of all if none does. */
  #headEnd(): number {
    const at = this.#buffer.indexOf(HEAD_END, this.#start);
    return at < 0 ? this.#end : Math.min(at + HEAD_END.length, this.#end);
  }

  /** Node has read. @returns whether it may read on: all has been taken, and is of no use to anybody any more */
  #filled(bytes: number): boolean {
    this.#start = 0;
    this.#end = bytes;
    this.#socket?.emit('readable');
    const goesOn = this.#start === this.#end && !this.#isPaused();
    this.#isStopped = !goesOn;
    return goesOn;
  }
}

import type { OnReadOpts, Socket } from 'node:net';
import { Client } from 'undici';
import { PullError } from '../format/error.js';
import { createConnector } from './connector.js';
import { proxyError } from './network-error.js';
import { MAX_HEADER_BYTES } from './response-limits.js';
import { type HttpProxy, proxyFor, type Transport } from './transport.js';

/** Storage origins may change with every signed URL: idle ones beyond this are closed. */
const MAX_ORIGINS = 16;

export interface ConnectionsOptions {
  /** Connections to one origin at a time. */
  readonly connections: number;
  readonly connectTimeoutMs: number;
  readonly transport: Transport;
  /** Reuse one read buffer a connection: consumers may not keep the bytes they receive. */
  readonly reusesBuffers?: boolean | undefined;
}

/** A slot for one connection to an origin, used by one request at a time and kept alive. */
export interface Connection {
  readonly origin: string;
  readonly client: Client;
  /** Precedes each path: the origin, when the request goes to a proxy. */
  readonly pathPrefix: string;
  /** Additional headers for a proxy. */
  readonly proxyHeaders: Readonly<Record<string, string>>;
  /** Responses that began on the current connection; above 0 it is reused. */
  responses: number;
  /** A body is arriving, whose bytes undici does not keep. */
  isBody: boolean;
  /** Stops reading until `resume`; at most one chunk of 64 KiB is buffered. */
  pause(): void;
  /** `isOver`: the request was aborted, and buffered bytes are not read. */
  resume(isOver?: boolean): void;
}

/** The connections of one worker. */
export interface Connections {
  /** At once or when a connection is released. Rejects (`internal`) after `close`. */
  acquire(origin: string): Promise<Connection>;
  release(connection: Connection): void;
  /** Closes every connection; requests in progress fail. */
  close(): Promise<void>;
}

interface OriginConnections {
  readonly all: Connection[];
  readonly free: Connection[];
  readonly waiting: { resolve(connection: Connection): void; reject(error: PullError): void }[];
}

/**
 * One undici Client a connection, not an Agent: this tells which request runs on a reused
 * connection, and allows to pause a connection without `controller.pause()`, after which undici 7
 * throws an uncatchable AssertionError when a server that sent `Connection: close` closes
 * (nodejs/undici#5360, fixed in 8).
 */
export function createConnections(options: ConnectionsOptions): Connections {
  const origins = new Map<string, OriginConnections>();
  let closed = false;

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
        const connection = createConnection(origin, proxy, options);
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
  proxy: HttpProxy | undefined,
  { transport, connectTimeoutMs, reusesBuffers }: ConnectionsOptions,
): Connection {
  let paused = false;
  const reused = reusesBuffers === true ? new ReusedBuffer(() => paused) : undefined;
  const connect = createConnector(transport, connectTimeoutMs, reused?.onread);
  let socket: Socket | undefined;
  const forward = origin.startsWith('http:') ? proxy : undefined;
  const client = new Client(forward?.origin ?? origin, {
    maxHeaderSize: MAX_HEADER_BYTES,
    // transfer.ts watches both, and does not count pauses.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: (target, callback) => {
      connect(target, (...[error, connected]) => {
        if (error !== null) {
          callback(forward === undefined ? error : proxyError(error, forward.host), null);
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
    pathPrefix: forward === undefined ? '' : origin,
    proxyHeaders: forward === undefined ? {} : headersFor(forward, origin),
    responses: 0,
    isBody: false,
    pause() {
      paused = true;
    },
    resume(isOver = false) {
      if (!paused) return;
      paused = false;
      if (isOver) return;
      // Wakes undici's reader: the event that announced the buffered bytes has passed.
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

/** Makes `read()` return nothing while `isPaused`, except `read(0)`, which streams need. */
function gate(socket: Socket, isPaused: () => boolean): void {
  const read = socket.read;
  socket.read = (sizeBytes?: number): unknown =>
    sizeBytes !== 0 && isPaused() ? null : read.call(socket, sizeBytes);
}

/** Bytes of one read: four times Node's default, for fewer reads. 16 connections use 4 MiB. */
const BUFFER_BYTES = 256 * 1024;

/** RFC 9112, section 2.1. */
const HEAD_END = '\r\n\r\n';

/**
 * One read buffer that a connection's sockets reuse, in place of a new one for each read. undici
 * calls `read()`, which a socket with `onread` does not serve: `serve` makes it do so. The bytes
 * that it returns are valid until the next read.
 */
class ReusedBuffer {
  readonly onread: OnReadOpts;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  readonly #isPaused: () => boolean;
  #socket: Socket | undefined;
  /** The bytes of the buffer that have not been read by undici. */
  #start = 0;
  #end = 0;
  /** Node has stopped reading until `read(0)`. */
  #isStopped = false;

  /** While `isPaused` nothing is read. */
  constructor(isPaused: () => boolean) {
    this.#isPaused = isPaused;
    this.onread = { buffer: this.#buffer, callback: (bytes) => this.#onFilled(bytes) };
  }

  /**
   * Makes `read()` of a connected socket return the bytes in the buffer. Unless `isBody`, it
   * returns a copy, as undici keeps the bytes of a head. Bytes behind the head are not copied with
   * it: for an image of 800 MB that would be 25 MB of garbage.
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
        return isBody() ? this.#read(this.#end) : Buffer.from(this.#read(this.#headEnd()));
      if (this.#isStopped) {
        this.#isStopped = false;
        read.call(socket, 0);
      }
      return null;
    };
  }

  #read(end: number): Buffer {
    const bytes = this.#buffer.subarray(this.#start, end);
    this.#start = end;
    return bytes;
  }

  /** The end of the head in the buffer; the end of the bytes if no head ends there. */
  #headEnd(): number {
    const at = this.#buffer.indexOf(HEAD_END, this.#start);
    return at < 0 ? this.#end : Math.min(at + HEAD_END.length, this.#end);
  }

  /**
   * Node has filled the buffer.
   * @returns whether it may read on: undici has read all bytes and is done with them
   */
  #onFilled(bytes: number): boolean {
    this.#start = 0;
    this.#end = bytes;
    this.#socket?.emit('readable');
    const goesOn = this.#start === this.#end && !this.#isPaused();
    this.#isStopped = !goesOn;
    return goesOn;
  }
}

import type { Socket } from 'node:net';
import { timeoutError } from './network-error.js';

type Connected = (error: Error | null, socket: Socket | null) => void;

/** How `connect` of node:net tries the addresses of a name. */
interface AddressOptions {
  readonly autoSelectFamilyAttemptTimeout?: number;
}

/** Begins to connect and returns the socket at once. */
export type Attempt = (options: AddressOptions, connected: Connected) => Socket;

/**
 * Connects to a name that may have several addresses, within a time. Node gives each but the last 250 ms and does not come back to it,
 * so one that is slow would be lost. When that happens all are tried once more beside it, with half of the time for each, and the first
 * connection that stands is taken (compare RFC 8305, 5).
 * @returns what ends it before
 */
export function connectPatiently(attempt: Attempt, timeoutMs: number, connected: Connected): () => void {
  const sockets = new Set<Socket>();
  let isOver = false;
  const finish: Connected = (error, made) => {
    if (isOver) return;
    isOver = true;
    clearTimeout(timer);
    for (const socket of sockets) socket.destroy();
    connected(error, made);
  };
  const begin = (options: AddressOptions): Socket => {
    const socket = attempt(options, (error, made) => {
      sockets.delete(socket);
      if (error === null || sockets.size === 0) finish(error, made);
    });
    sockets.add(socket);
    return socket;
  };
  const timer = setTimeout(() => finish(timeoutError('connect'), null), timeoutMs);
  const patient = { autoSelectFamilyAttemptTimeout: Math.ceil(timeoutMs / 2) };
  begin({}).once('connectionAttemptTimeout', () => begin(patient));
  return () => finish(new Error('closed'), null);
}

/** Calls back when a socket that connects is ready, which its `event` tells, or has failed. */
export function whenReady(socket: Socket, event: 'connect' | 'secureConnect', connected: Connected): Socket {
  return socket.once(event, () => connected(null, socket)).once('error', (error) => connected(error, null));
}

/** As `connectPatiently`. Rejects with the error. */
export function connected(attempt: Attempt, timeoutMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    connectPatiently(attempt, timeoutMs, (error, socket) =>
      socket === null ? reject(error) : resolve(socket),
    );
  });
}

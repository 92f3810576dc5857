import { count } from '../src/pool/counters.js';
import type { RangeClient, RangeEvents } from '../src/registry/range.js';
import { authorization } from './authorization.js';
import { setup, tell } from './context.js';

type Registry = typeof import('../src/registry/range.js');

let loaded: Promise<{ fetchRange: Registry['fetchRange']; client: RangeClient }> | undefined;

/** This thread's HTTP client, loaded at its first use: undici takes about 100 ms of a thread that may never need it. */
export function rangeClient(): Promise<{ fetchRange: Registry['fetchRange']; client: RangeClient }> {
  loaded ??= import('../src/registry/range.js').then(({ fetchRange, createRangeClient }) => ({
    fetchRange,
    client: createRangeClient({
      connections: setup.connections,
      connectTimeoutMs: setup.connectTimeoutMs,
      idleTimeoutMs: setup.idleTimeoutMs,
      tlsVerify: setup.tlsVerify,
      userAgent: setup.userAgent,
    }),
  }));
  return loaded;
}

/** How long a stream waits after a miss before it asks again, in milliseconds. The main thread may end it sooner. */
const RETRY_WAIT_MS = 1000;

export const rangeEvents: RangeEvents = {
  received: (bytes) => count(setup.counters, 'received', bytes),
  requested: () => {},
  miss: (message) => {
    tell({ event: 'miss', message });
    return new Promise((resolve) => setTimeout(resolve, RETRY_WAIT_MS));
  },
  authorization,
  pause: () => {
    tell({ event: 'asking', change: -1 });
    return () => tell({ event: 'asking', change: 1 });
  },
};

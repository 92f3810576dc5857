import { count } from '../src/pool/counters.js';
import { RETRY_WAIT_MS } from '../src/pool/messages.js';
import type { RangeClient, RangeEvents } from '../src/registry/range-client.js';
import { authorization, originOf } from './authorization.js';
import { network, setup, tell } from './context.js';

interface Loaded {
  readonly fetchRange: typeof import('../src/registry/range.js').fetchRange;
  readonly client: RangeClient;
}

let loaded: Promise<Loaded> | undefined;

/** This thread's HTTP client, loaded at its first use: undici takes about 100 ms of a thread that may never need it. */
export function rangeClient(): Promise<Loaded> {
  loaded ??= load();
  return loaded;
}

async function load(): Promise<Loaded> {
  const [{ fetchRange }, { createRangeClient }] = await Promise.all([
    import('../src/registry/range.js'),
    import('../src/registry/range-client.js'),
  ]);
  return { fetchRange, client: createRangeClient(network()) };
}

export const rangeEvents: RangeEvents = {
  received: (bytes) => count(setup.counters, 'received', bytes),
  requested: () => {},
  ...(setup.network?.debug === true && { answered: (line: string) => tell({ event: 'request', line }) }),
  miss: (message) => {
    tell({ event: 'miss', message });
    return new Promise((resolve) => setTimeout(resolve, RETRY_WAIT_MS));
  },
  authorization,
  originOf,
  pause: () => {
    tell({ event: 'asking', change: -1 });
    return () => tell({ event: 'asking', change: 1 });
  },
};

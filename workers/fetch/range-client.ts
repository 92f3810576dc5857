import { RETRY_WAIT_MS } from '../../src/pool/messages.js';
import {
  consumeStop,
  count,
  draw,
  noteReceived,
  type RangeControl,
  type RateLimit,
} from '../../src/pool/shared-memory.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { EndpointChoice, NO_ENDPOINT } from '../../src/registry/endpoint-state.js';
import type { RangeEvents, RangeJob, RangeStop, RangeTotals } from '../../src/registry/range-client.js';
import { network, postEvent, setup, unwatch, watch } from '../context.js';
import { noteGarbage } from '../garbage.js';
import { authorization, originOf, sharedTargets } from './main-answers.js';
import { ReadingOrder } from './reading-order.js';

interface Loaded {
  /** As `fetchRange` of src/registry/range.ts, and as `readRange` for a blob on this machine. */
  readonly fetchRange: (job: RangeJob) => Promise<RangeTotals>;
  readonly choice: EndpointChoice;
}

let loaded: Promise<Loaded> | undefined;

/** Returns the range client of this thread. Loads it at first use: undici takes about 100 ms. */
export function rangeClient(): Promise<Loaded> {
  loaded ??= network().isLocal === true ? loadLocal() : loadHttp();
  return loaded;
}

export async function loadClient(): Promise<undefined> {
  await rangeClient();
  return undefined;
}

async function loadHttp(): Promise<Loaded> {
  const [{ fetchRange }, { createRangeClient }] = await Promise.all([
    import('../../src/registry/range.js'),
    import('../../src/registry/range-client.js'),
  ]);
  const client = createRangeClient({ ...network(), sharedTargets });
  return { fetchRange: (job) => fetchRange(client, job), choice: client.choice };
}

/** For blobs of a layout on this machine; fetches foreign blobs over HTTP. */
async function loadLocal(): Promise<Loaded> {
  const { isFile, readRange } = await import('./local-range.js');
  const { endpoints, endpointState, limits } = network();
  let http: Promise<Loaded> | undefined;
  const fetchRange = async (job: RangeJob): Promise<RangeTotals> => {
    if (isFile(job.blob.url)) return readRange(job);
    http ??= loadHttp();
    return (await http).fetchRange(job);
  };
  return { fetchRange, choice: new EndpointChoice(endpoints.length, endpointState, limits) };
}

const rangeEvents: RangeEvents = {
  received: (bytes) => {
    count(setup.counters, 'received', bytes);
    if (setup.network?.reusesBuffers !== true) noteGarbage(bytes);
  },
  requested: () => {},
  ...(setup.network?.debug === true && { log: (line: string) => postEvent({ event: 'request', line }) }),
  miss: (message, failed) => {
    postEvent({ event: 'miss', message, ...failed });
    return new Promise((resolve) => setTimeout(resolve, RETRY_WAIT_MS));
  },
  authorization,
  originOf,
  ...(setup.rateLimit !== undefined && { limit: keepTo.bind(undefined, setup.rateLimit) }),
  pause: (unreported) => {
    if (unreported !== undefined) postEvent({ event: 'throttled', ...unreported });
    return pauseKarma();
  },
};

/** The resolution of timers: a shorter wait is added to the next one. */
const SHORTEST_WAIT_MS = 1;

/** With the default patience, karma fades by a tenth in such a wait, so that it is reported. */
const REPORTED_WAIT_MS = 100;

/**
 * Resolves after the wait that the limit requires. The connection stays open, the thread goes on.
 */
function keepTo(limit: RateLimit, bytes: number): Promise<void> | undefined {
  const waitMs = draw(limit, bytes);
  if (waitMs < SHORTEST_WAIT_MS) return undefined;
  const goOn = waitMs < REPORTED_WAIT_MS ? () => {} : pauseKarma();
  return new Promise<void>((resolve) => setTimeout(resolve, waitMs)).then(goOn);
}

/** Stops karma's clock for this range until the returned function is called. */
function pauseKarma(): () => void {
  postEvent({ event: 'requesting', change: -1 });
  return () => postEvent({ event: 'requesting', change: 1 });
}

/**
 * Returns the events of one range, and the running `totals` of its cost. Counts received bytes in
 * `control` and for `stage`.
 */
export function countingEvents(stage: 'metadata' | 'fetch', control?: RangeControl) {
  const totals = { fetchedBytes: 0, requests: 0 };
  let sender: number | undefined;
  const events: RangeEvents = {
    ...rangeEvents,
    received(bytes, endpoint) {
      totals.fetchedBytes += bytes;
      threadClock.addBytes(stage, bytes);
      if (control !== undefined) noteReceived(control, bytes);
      sender = Math.min(sender ?? endpoint, endpoint);
      rangeEvents.received(bytes, endpoint);
    },
    requested() {
      totals.requests += 1;
    },
  };
  /** The endpoint to blame for wrong bytes: of several the first, as mirrors precede the registry. */
  return { events, totals, sender: () => sender ?? NO_ENDPOINT };
}

const order = new ReadingOrder();

/**
 * Begins a range that the main thread may stop and that takes turns with the other ranges of this
 * thread: its events and totals, as from `countingEvents`, and its stop. `endFor` returns where the
 * range may end, at or after its first missing byte. Call `close` when it ends.
 */
export function beginRange(control?: RangeControl, endFor?: (next: number) => number) {
  const { events, totals, sender } = countingEvents('fetch', control);
  const stop = new ControlledStop(control, endFor);
  const { received, end } = order.begin();
  threadClock.enter('fetch');
  if (control !== undefined) watch(stop);
  return {
    events: { ...events, limit: (bytes: number) => rangeEvents.limit?.(bytes) ?? received() },
    totals,
    sender,
    stop,
    close() {
      unwatch(stop);
      end();
      threadClock.leave('fetch');
    },
  };
}

/** Lets the main thread stop a range. */
class ControlledStop implements RangeStop {
  /** Where the stopped range ended or will end; undefined when it was not stopped. */
  end: number | undefined;
  readonly #control: RangeControl | undefined;
  readonly #endFor: (next: number) => number;
  #abort: (() => void) | undefined;

  constructor(control: RangeControl | undefined, endFor = (next: number) => next) {
    this.#control = control;
    this.#endFor = endFor;
  }

  tick(): void {
    if (this.#control !== undefined && consumeStop(this.#control)) this.#abort?.();
  }

  inFlight(abort: (() => void) | undefined): void {
    this.#abort = abort;
  }

  ended(next: number, end: number): number {
    this.end = Math.min(end, Math.max(next, this.#endFor(next)));
    return this.end;
  }
}

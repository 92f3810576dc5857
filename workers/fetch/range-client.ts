import { BroadcastChannel, threadId } from 'node:worker_threads';
import { type MainMessage, RETRY_WAIT_MS } from '../../src/pool/messages.js';
import {
  consumeStop,
  count,
  draw,
  noteReceived,
  type RangeControl,
  type RateLimit,
} from '../../src/pool/shared-memory.js';
import { EndpointChoice, NO_ENDPOINT } from '../../src/registry/endpoint-state.js';
import {
  type RangeEvents,
  type RangeJob,
  RangeStop,
  type RangeTotals,
} from '../../src/registry/range-client.js';
import type { SharedTargets } from '../../src/registry/redirect-targets.js';
import { network, postEvent, setup } from '../context.js';
import { noteGarbage } from '../garbage.js';
import { unwatch, watch } from '../ticker.js';
import { authorization, originOf } from './authorization.js';
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
  const goOn = waitMs < REPORTED_WAIT_MS ? () => {} : stopAsking();
  return new Promise<void>((resolve) => setTimeout(resolve, waitMs)).then(goOn);
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
    return stopAsking();
  },
};

/** Stops karma's clock for this range until the returned function is called. */
function stopAsking(): () => void {
  postEvent({ event: 'asking', change: -1 });
  return () => postEvent({ event: 'asking', change: 1 });
}

/** Lets the main thread stop a range until `close` is called. `endFor`: as RangeStop has it. */
function stopFor(control: RangeControl | undefined, endFor?: (next: number) => number) {
  const stop = new RangeStop(endFor);
  if (control === undefined) return { stop, close: () => {} };
  const poll = {
    tick: () => {
      if (consumeStop(control)) stop.request();
    },
  };
  watch(poll);
  return { stop, close: () => unwatch(poll) };
}

/**
 * Returns the events of one range, and the running `totals` of its cost. Counts received bytes in
 * `control`.
 */
export function countingEvents(control?: RangeControl): {
  readonly events: RangeEvents;
  readonly totals: { fetchedBytes: number; requests: number };
  /**
   * The endpoint to blame for wrong bytes: of several the first, since mirrors precede the
   * registry.
   */
  sender(): number;
} {
  const totals = { fetchedBytes: 0, requests: 0 };
  let sender: number | undefined;
  const events = {
    ...rangeEvents,
    received(bytes: number, endpoint: number): void {
      totals.fetchedBytes += bytes;
      if (control !== undefined) noteReceived(control, bytes);
      sender = Math.min(sender ?? endpoint, endpoint);
      rangeEvents.received(bytes, endpoint);
    },
    requested(): void {
      totals.requests += 1;
    },
  };
  return { events, totals, sender: () => sender ?? NO_ENDPOINT };
}

const order = new ReadingOrder();

/**
 * Begins a range that the main thread may stop and that takes turns with the other ranges of this
 * thread: its events and totals, as from `countingEvents`, and its stop. Call `close` when it ends.
 */
export function beginRange(control: RangeControl | undefined, endFor?: (next: number) => number) {
  const { events, totals, sender } = countingEvents(control);
  const { stop, close } = stopFor(control, endFor);
  const { received, end } = order.begin();
  return {
    events: { ...events, limit: (bytes: number) => rangeEvents.limit?.(bytes) ?? received() },
    totals,
    sender,
    stop,
    close() {
      close();
      end();
    },
  };
}

type Answer = URL | 'renew' | undefined;

/** Requests that wait for the main thread, by blob URL. */
const waiting = new Map<
  string,
  { readonly answered: Promise<Answer>; readonly resolve: (answer: Answer) => void }
>();

/**
 * The main thread lets one thread request a blob's new target from the registry, and sends the
 * result to the others.
 */
export const sharedTargets: SharedTargets = {
  expired(blobUrl, target) {
    const pending = waiting.get(blobUrl);
    if (pending !== undefined) return pending.answered;
    onMainMessage(answer);
    let resolve = (_answer: Answer): void => {};
    const answered = new Promise<Answer>((settle) => {
      resolve = settle;
    });
    waiting.set(blobUrl, { answered, resolve });
    postEvent({ event: 'target-expired', blobUrl, target: target?.href, thread: threadId });
    return answered;
  },
  renewed: (blobUrl, target) => postEvent({ event: 'target-renewed', blobUrl, target: target?.href }),
  failed: (blobUrl, target) => postEvent({ event: 'target-failed', blobUrl, target: target.href }),
};

/** Handles the one answer to each `target-expired`. */
function answer(message: MainMessage): void {
  if (message.message !== 'target' && message.message !== 'renew-target') return;
  if (message.thread !== threadId) return;
  const pending = waiting.get(message.blobUrl);
  waiting.delete(message.blobUrl);
  if (message.message === 'renew-target') pending?.resolve('renew');
  else pending?.resolve(message.target === undefined ? undefined : new URL(message.target));
}

type Listener = (message: MainMessage) => void;

const listeners = new Set<Listener>();
let channel: BroadcastChannel | undefined;

/**
 * Calls `listener` with each message of the main thread from now on; adding it again has no effect.
 */
export function onMainMessage(listener: Listener): void {
  listeners.add(listener);
  if (channel !== undefined) return;
  channel = new BroadcastChannel(network().channel);
  channel.onmessage = (event) => {
    for (const each of listeners) each((event as { data: MainMessage }).data);
  };
}

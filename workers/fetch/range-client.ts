import { BroadcastChannel, threadId } from 'node:worker_threads';
import { count } from '../../src/pool/counters.js';
import { type MainMessage, RETRY_WAIT_MS } from '../../src/pool/messages.js';
import { noteReceived, type RangeControl, takeStop } from '../../src/pool/range-control.js';
import { draw, type RateLimit } from '../../src/pool/rate-limit.js';
import { EndpointChoice, NO_ENDPOINT } from '../../src/registry/endpoint-choice.js';
import {
  type RangeEvents,
  type RangeJob,
  RangeStop,
  type RangeTotals,
} from '../../src/registry/range-client.js';
import type { SharedTargets } from '../../src/registry/redirect-targets.js';
import { network, setup, tell } from '../context.js';
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

/** What fetches ranges in this thread, loaded at its first use: undici takes about 100 ms of a thread that may never need it. */
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

/** Blobs of a layout on this machine; foreign ones still lie elsewhere. */
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

/** Timers are due to a millisecond: what is shorter is added to the next wait. */
const SHORTEST_WAIT_MS = 1;

/** A wait by which bytes received fade by a tenth with the default patience: karma has to know of it. */
const TOLD_WAIT_MS = 100;

/** Waits as long as the limit asks for, with the connection held and not the thread. */
function keepTo(limit: RateLimit, bytes: number): Promise<void> | undefined {
  const waitMs = draw(limit, bytes);
  if (waitMs < SHORTEST_WAIT_MS) return undefined;
  const goOn = waitMs < TOLD_WAIT_MS ? () => {} : stopAsking();
  return new Promise<void>((resolve) => setTimeout(resolve, waitMs)).then(goOn);
}

const rangeEvents: RangeEvents = {
  received: (bytes) => {
    count(setup.counters, 'received', bytes);
    if (setup.network?.reusesBuffers !== true) noteGarbage(bytes);
  },
  requested: () => {},
  ...(setup.network?.debug === true && { log: (line: string) => tell({ event: 'request', line }) }),
  miss: (message, failed) => {
    tell({ event: 'miss', message, ...failed });
    return new Promise((resolve) => setTimeout(resolve, RETRY_WAIT_MS));
  },
  authorization,
  originOf,
  ...(setup.rateLimit !== undefined && { limit: keepTo.bind(undefined, setup.rateLimit) }),
  pause: (told) => {
    if (told !== undefined) tell({ event: 'throttled', ...told });
    return stopAsking();
  },
};

/** Karma's clock need not run for this one until the returned function is called. */
function stopAsking(): () => void {
  tell({ event: 'asking', change: -1 });
  return () => tell({ event: 'asking', change: 1 });
}

/** Lets the main thread stop a range until `close` is called. `endFor`: as RangeStop has it. */
function stopFor(control: RangeControl | undefined, endFor?: (next: number) => number) {
  const stop = new RangeStop(endFor);
  if (control === undefined) return { stop, close: () => {} };
  const asked = {
    tick: () => {
      if (takeStop(control)) stop.request();
    },
  };
  watch(asked);
  return { stop, close: () => unwatch(asked) };
}

/** Events of one range that also add up what it cost; `totals` grows. The main thread sees in `control` how much has come. */
export function countingEvents(control?: RangeControl): {
  readonly events: RangeEvents;
  readonly totals: { fetchedBytes: number; requests: number };
  /** Who is to blame for wrong bytes: of several endpoints that sent some the first, as mirrors stand before the registry. */
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
 * What one range of many needs: its events and what it cost so far, as `countingEvents` has them; how the main thread stops it; its place among
 * the ranges of this thread. `close` is to be called when it is over.
 */
export function beginRange(control: RangeControl | undefined, endFor?: (next: number) => number) {
  const { events, totals, sender } = countingEvents(control);
  const { stop, close } = stopFor(control, endFor);
  const { took, end } = order.begin();
  return {
    events: { ...events, limit: (bytes: number) => rangeEvents.limit?.(bytes) ?? took() },
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

/** What waits for the main thread, by blob. */
const waiting = new Map<
  string,
  { readonly answered: Promise<Answer>; readonly resolve: (answer: Answer) => void }
>();

/** The main thread lets one thread ask the registry for a blob's new target, and tells the others what it found. */
export const sharedTargets: SharedTargets = {
  expired(blobUrl, target) {
    const asked = waiting.get(blobUrl);
    if (asked !== undefined) return asked.answered;
    hearMain(answer);
    let resolve = (_answer: Answer): void => {};
    const answered = new Promise<Answer>((settle) => {
      resolve = settle;
    });
    waiting.set(blobUrl, { answered, resolve });
    tell({ event: 'target-expired', blobUrl, target: target?.href, thread: threadId });
    return answered;
  },
  renewed: (blobUrl, target) => tell({ event: 'target-renewed', blobUrl, target: target?.href }),
  failed: (blobUrl, target) => tell({ event: 'target-failed', blobUrl, target: target.href }),
};

/** Each `target-expired` has one answer. */
function answer(message: MainMessage): void {
  if (message.message !== 'target' && message.message !== 'renew-target') return;
  if (message.thread !== threadId) return;
  const asked = waiting.get(message.blobUrl);
  waiting.delete(message.blobUrl);
  if (message.message === 'renew-target') asked?.resolve('renew');
  else asked?.resolve(message.target === undefined ? undefined : new URL(message.target));
}

type Take = (message: MainMessage) => void;

const takers = new Set<Take>();
let channel: BroadcastChannel | undefined;

/** Calls `take` with each message of the main thread from now on, once, however often it is asked for. */
export function hearMain(take: Take): void {
  takers.add(take);
  if (channel !== undefined) return;
  channel = new BroadcastChannel(network().channel);
  channel.onmessage = (event) => {
    for (const each of takers) each((event as { data: MainMessage }).data);
  };
}

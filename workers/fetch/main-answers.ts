import { BroadcastChannel, threadId } from 'node:worker_threads';
import { fromFailure, type PullError } from '../../src/format/error.js';
import type { MainMessage } from '../../src/pool/messages.js';
import { noteAuthorization } from '../../src/registry/redaction.js';
import type { SharedTargets } from '../../src/registry/redirect-targets.js';
import { network, postEvent } from '../context.js';

/** What only the main thread requests, once for all threads: tokens, and targets of blobs. */
let channel: BroadcastChannel | undefined;

/** Receives the answers of the main thread from now on. */
function listen(): void {
  if (channel !== undefined) return;
  channel = new BroadcastChannel(network().channel);
  channel.onmessage = (event) => {
    const { data } = event as { data: MainMessage };
    if (data.message === 'authorization' || data.message === 'authorization-failed') receiveToken(data);
    else if (data.thread === threadId) receiveTarget(data);
  };
}

interface Waiter {
  readonly endpoint: number;
  /** The value that was refused, or is too old. */
  readonly stale: string;
  readonly resolve: (value: string | undefined) => void;
  readonly reject: (error: Error) => void;
}

/** The credentials of an endpoint; unknown for those after the first until they are requested. */
interface Known {
  readonly value: string | undefined;
  readonly expiresAtMs: number;
  readonly origin?: string;
}

const NOTHING: Known = { value: undefined, expiresAtMs: Number.POSITIVE_INFINITY };

const known = new Map<number, Known>([[0, network().authorization ?? NOTHING]]);
/** Endpoints after the first that refuse our credentials: no token is requested from them again. */
const closed = new Map<number, PullError>();
let waiters: Waiter[] = [];

/**
 * Returns the Authorization value for an endpoint, if it requires one. `refused` is the value that
 * it refused, '' for none. If that or an expiring value is the newest one, requests another from
 * the main thread, which refreshes it once for all threads and answers on the channel.
 */
export function authorization(refused: string | undefined, endpoint: number): Promise<string | undefined> {
  const { value, expiresAtMs } = known.get(endpoint) ?? NOTHING;
  if (value !== undefined) noteAuthorization(value);
  const stale = refused ?? (Date.now() < expiresAtMs ? undefined : value);
  if (stale === undefined || stale !== (value ?? '')) return Promise.resolve(value);
  return new Promise((resolve, reject) => {
    const isRequested = waiters.some((waiter) => waiter.stale === stale && waiter.endpoint === endpoint);
    waiters.push({ endpoint, stale, resolve, reject });
    if (isRequested) return;
    listen();
    postEvent({ event: 'authorization', endpoint, stale });
  });
}

/**
 * Returns `http://…` or `https://…` of an endpoint after the first. The main thread finds it, with
 * the token that the endpoint requires.
 * @throws PullError if the endpoint refuses our credentials
 */
export async function originOf(endpoint: number): Promise<string> {
  const refusal = closed.get(endpoint);
  if (refusal !== undefined) throw refusal;
  if (!known.has(endpoint)) await authorization('', endpoint);
  const origin = known.get(endpoint)?.origin;
  if (origin === undefined) throw new Error(`endpoint ${endpoint} is unknown`);
  return origin;
}

function receiveToken(
  message: Extract<MainMessage, { message: 'authorization' | 'authorization-failed' }>,
): void {
  const isAnswered = ({ endpoint, stale }: Waiter) =>
    endpoint === message.endpoint && stale === message.stale;
  const answered = waiters.filter(isAnswered);
  waiters = waiters.filter((waiter) => !isAnswered(waiter));
  if (message.message === 'authorization-failed') {
    const failure = fromFailure(message.failure);
    if (message.stale === '' && failure.code === 'unauthorized') closed.set(message.endpoint, failure);
    for (const { reject } of answered) reject(failure);
    return;
  }
  const { value, expiresAtMs, origin } = message;
  if (value !== undefined) noteAuthorization(value);
  known.set(message.endpoint, { value, expiresAtMs, origin });
  for (const { resolve } of answered) resolve(value);
}

type Target = URL | 'renew' | undefined;

/** Requests that wait for the main thread, by blob URL. */
const waiting = new Map<string, { readonly target: Promise<Target>; resolve(target: Target): void }>();

/**
 * The main thread lets one thread request a blob's new target from the registry, and sends the
 * result to the others.
 */
export const sharedTargets: SharedTargets = {
  expired(blobUrl, target) {
    const pending = waiting.get(blobUrl);
    if (pending !== undefined) return pending.target;
    listen();
    let resolve = (_target: Target): void => {};
    const answer = new Promise<Target>((settle) => {
      resolve = settle;
    });
    waiting.set(blobUrl, { target: answer, resolve });
    postEvent({ event: 'target-expired', blobUrl, target: target?.href, thread: threadId });
    return answer;
  },
  renewed: (blobUrl, target) => postEvent({ event: 'target-renewed', blobUrl, target: target?.href }),
  failed: (blobUrl, target) => postEvent({ event: 'target-failed', blobUrl, target: target.href }),
};

/** Handles the one answer to each `target-expired`. */
function receiveTarget(message: Extract<MainMessage, { message: 'target' | 'renew-target' }>): void {
  const pending = waiting.get(message.blobUrl);
  waiting.delete(message.blobUrl);
  if (message.message === 'renew-target') pending?.resolve('renew');
  else pending?.resolve(message.target === undefined ? undefined : new URL(message.target));
}

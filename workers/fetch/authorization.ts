import { fromFailure, type PullError } from '../../src/format/error.js';
import type { MainMessage } from '../../src/pool/messages.js';
import { noteAuthorization } from '../../src/registry/redaction.js';
import { network, postEvent } from '../context.js';
import { onMainMessage } from './range-client.js';

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
    onMainMessage(answer);
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

function answer(message: MainMessage): void {
  if (message.message !== 'authorization' && message.message !== 'authorization-failed') return;
  const isAnswered = ({ endpoint, stale }: Waiter) =>
    endpoint === message.endpoint && stale === message.stale;
  const waiting = waiters.filter(isAnswered);
  waiters = waiters.filter((waiter) => !isAnswered(waiter));
  if (message.message === 'authorization-failed') {
    const failure = fromFailure(message.failure);
    if (message.stale === '' && failure.code === 'unauthorized') closed.set(message.endpoint, failure);
    for (const { reject } of waiting) reject(failure);
    return;
  }
  const { value, expiresAtMs, origin } = message;
  if (value !== undefined) noteAuthorization(value);
  known.set(message.endpoint, { value, expiresAtMs, origin });
  for (const { resolve } of waiting) resolve(value);
}

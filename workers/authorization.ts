import { BroadcastChannel } from 'node:worker_threads';
import { fromFailure } from '../src/format/error.js';
import type { MainMessage } from '../src/pool/messages.js';
import { network, tell } from './context.js';

interface Waiter {
  /** The value that was refused, or is too old. */
  readonly stale: string;
  readonly resolve: (value: string | undefined) => void;
  readonly reject: (error: Error) => void;
}

let { value: current, expiresAtMs }: { value: string | undefined; expiresAtMs: number } = network()
  .authorization ?? { value: undefined, expiresAtMs: Number.POSITIVE_INFINITY };
let listening = false;
let waiters: Waiter[] = [];

/**
 * The value of the Authorization header, if one is needed. `refused`: the value that was refused ('' for none). For
 * that, and for one that is about to expire, unless a newer one has come meanwhile, the main thread is asked; it refreshes once for all workers and answers on the
 * channel.
 */
export function authorization(refused?: string): Promise<string | undefined> {
  const stale = refused ?? (Date.now() < expiresAtMs ? undefined : current);
  if (stale === undefined || stale !== (current ?? '')) return Promise.resolve(current);
  return new Promise((resolve, reject) => {
    const asked = waiters.some((waiter) => waiter.stale === stale);
    waiters.push({ stale, resolve, reject });
    if (asked) return;
    listen();
    tell({ event: 'authorization', stale });
  });
}

function listen(): void {
  if (listening) return;
  listening = true;
  const channel = new BroadcastChannel(network().channel);
  channel.onmessage = (event) => answer((event as { data: MainMessage }).data);
}

function answer(message: MainMessage): void {
  const waiting = waiters.filter(({ stale }) => stale === message.stale);
  waiters = waiters.filter(({ stale }) => stale !== message.stale);
  if (message.message === 'authorization-failed') {
    for (const { reject } of waiting) reject(fromFailure(message.failure));
    return;
  }
  current = message.value;
  expiresAtMs = message.expiresAtMs;
  for (const { resolve } of waiting) resolve(message.value);
}

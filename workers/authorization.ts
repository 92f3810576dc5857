import { BroadcastChannel } from 'node:worker_threads';
import { fromFailure } from '../src/format/error.js';
import type { MainMessage } from '../src/pool/messages.js';
import { setup, tell } from './context.js';

type Waiter = { resolve: (value: string | undefined) => void; reject: (error: Error) => void };

let current: string | undefined = setup.authorization;
let channel: BroadcastChannel | undefined;
const waiters: Waiter[] = [];

/**
 * The Authorization header value to use. When `stale` is the current value, the main thread is asked for a new one;
 * it refreshes once for all workers and answers on the channel.
 */
export function authorization(stale?: string): Promise<string | undefined> {
  if (stale === undefined ? current !== undefined || setup.authorization === undefined : stale !== current) {
    return Promise.resolve(current);
  }
  return new Promise((resolve, reject) => {
    waiters.push({ resolve, reject });
    if (waiters.length > 1) return;
    listen();
    tell({ event: 'authorization', stale });
  });
}

function listen(): void {
  if (channel !== undefined) return;
  channel = new BroadcastChannel(setup.channel);
  channel.onmessage = (event) => answer((event as { data: MainMessage }).data);
  (channel as unknown as { unref(): void }).unref();
}

function answer(message: MainMessage): void {
  const waiting = waiters.splice(0);
  if (message.message === 'authorization-failed') {
    for (const { reject } of waiting) reject(fromFailure(message.failure));
    return;
  }
  current = message.value;
  for (const { resolve } of waiting) resolve(message.value);
}

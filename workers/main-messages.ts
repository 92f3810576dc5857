import { BroadcastChannel } from 'node:worker_threads';
import type { MainMessage } from '../src/pool/messages.js';
import { network } from './context.js';

/** Calls `take` with each message of the main thread from now on. */
export function hearMain(take: (message: MainMessage) => void): void {
  const channel = new BroadcastChannel(network().channel);
  channel.onmessage = (event) => take((event as { data: MainMessage }).data);
}

import { BroadcastChannel } from 'node:worker_threads';
import type { MainMessage } from '../src/pool/messages.js';
import { network } from './context.js';

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

import { threadId } from 'node:worker_threads';
import type { MainMessage } from '../src/pool/messages.js';
import type { SharedTargets } from '../src/registry/targets.js';
import { tell } from './context.js';
import { hearMain } from './main-messages.js';

/** What waits for the main thread, by blob. */
const waiting = new Map<string, (answer: URL | 'renew' | undefined) => void>();
let hearing = false;

/** The main thread lets one thread ask the registry for a blob's new target, and tells all what it found. */
export const sharedTargets: SharedTargets = {
  expired(blobUrl, target) {
    if (!hearing) hearMain(answer);
    hearing = true;
    return new Promise((resolve) => {
      waiting.set(blobUrl, resolve);
      tell({ event: 'target-expired', blobUrl, target: target.href, thread: threadId });
    });
  },
  renewed: (blobUrl, target) => tell({ event: 'target-renewed', blobUrl, target: target?.href }),
  failed: (blobUrl, target) => tell({ event: 'target-failed', blobUrl, target: target.href }),
};

function answer(message: MainMessage): void {
  if (message.message !== 'target' && message.message !== 'renew-target') return;
  if (message.message === 'renew-target' && message.thread !== threadId) return;
  const resolve = waiting.get(message.blobUrl);
  if (resolve === undefined) return;
  waiting.delete(message.blobUrl);
  if (message.message === 'renew-target') resolve('renew');
  else resolve(message.target === undefined ? undefined : new URL(message.target));
}

import { threadId } from 'node:worker_threads';
import type { MainMessage } from '../../src/pool/messages.js';
import type { SharedTargets } from '../../src/registry/targets.js';
import { tell } from '../context.js';
import { hearMain } from '../main-messages.js';

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

import { parentPort } from 'node:worker_threads';
import { sharedTargets } from '../../workers/fetch/main-answers.js';

/** A thread that reports the target in each message as expired and posts the answer. */
parentPort!.on('message', async ({ blobUrl, target }: { blobUrl: string; target: string }) => {
  const answer = await sharedTargets.expired(blobUrl, new URL(target));
  parentPort!.postMessage({ settled: answer instanceof URL ? answer.href : (answer ?? null) });
});

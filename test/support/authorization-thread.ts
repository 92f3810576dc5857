/**
 * A thread that asks for authorization as a worker does. Each message is a value that was refused, or null to be told
 * the current one; what comes of it is posted as `{ settled }`, beside the events that a worker posts.
 */
import { parentPort } from 'node:worker_threads';
import { authorization } from '../../workers/fetch/main-answers.js';

parentPort?.on('message', (refused: string | null) => {
  const post = (outcome: string) => parentPort?.postMessage({ settled: [refused, outcome] });
  authorization(refused ?? undefined, 0).then(
    (value) => post(value ?? 'none'),
    (error: { code?: string }) => post(`failed: ${error.code}`),
  );
});

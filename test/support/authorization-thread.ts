/**
 * A thread that requests authorization as a worker does. Each message is a value that was refused, or null for the
 * current one. Posts the outcome as `{ settled }`, and the events that a worker posts.
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

/** Elsewhere: that no wait is a miss (pull-faults), mirrors that ask to wait (mirror-blobs), how waits add up (unit/registry/retry-after). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blobsImage, copyBlobs } from '../support/blobs.js';
import { startSandbox } from '../support/sandbox.js';

test('a wait asked of one request holds for the requests of all threads and connections', async (t) => {
  // Two threads fetch so much; the small ones are more requests than three connections can make in the second.
  const small = Array.from({ length: 60 }, (_, i) => 1000 + i);
  const image = await blobsImage(t, ...small, 9 * 2 ** 20);
  const action = { status: 429, headers: { 'Retry-After': '1' } };
  const over = new AbortController();
  let toldMs: number | undefined;
  let early = 0;
  const registry = await startSandbox(t, {
    layout: image.layout,
    latencyMs: 50,
    faults: [{ match: { path: '/blobs/', range: 'any', nth: 8 }, action }],
    onRequest: ({ status }) => {
      if (status === 429) toldMs = performance.now();
      else if (toldMs === undefined) return;
      else if (performance.now() < toldMs + 1000) early++;
      else over.abort();
    },
  });
  const options = { connections: 4, workers: 2, signal: over.signal };
  const { misses } = await copyBlobs(t, image, registry.host, options);
  assert.ok(over.signal.aborted);
  assert.deepEqual(misses, []);
  // Three others were under way; the rest is room for a thread that is slow to hear of it.
  assert.ok(early <= 12, `${early} requests before the second was over`);
});

/** Registries that ask to wait for a blob. Elsewhere: that no wait is a miss (pull-faults), how waits add up (unit/registry/retry-after). */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { FaultAction } from '../../src/sandbox/faults.js';
import { asksFor, blobsImage, copyBlobs, inTurn } from '../support/blobs.js';
import { registryTable, useRegistriesConf } from '../support/registries-conf.js';
import { startSandbox } from '../support/sandbox.js';

async function assertToldToAll(t: TestContext): Promise<void> {
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
}

/** A blob of a registry with a mirror, both of which answer so for it. */
async function atTwo(t: TestContext, mirrorSays: FaultAction, registrySays: FaultAction) {
  const image = await blobsImage(t, 1000);
  const { layout, digests } = image;
  const serve = (action: FaultAction) => startSandbox(t, { layout, faults: inTurn(digests[0]!, action) });
  const [mirror, registry] = await Promise.all([serve(mirrorSays), serve(registrySays)]);
  const told = () => [mirror, registry].map((at) => asksFor(at, digests[0]!).map(({ status }) => status));
  return { image, host: registry.host, table: registryTable(registry.host, [mirror.host]), told };
}

test('what one request is told to wait holds', { concurrency: true }, async (t) => {
  const shortly = { retryAfter: { status: 429, seconds: 1 } } as const;
  const long = { retryAfter: { status: 503, seconds: 300 } } as const;
  const waiting = await atTwo(t, shortly, { status: 404 });
  const hopeless = await atTwo(t, long, long);
  useRegistriesConf(t, waiting.table + hopeless.table);
  await Promise.all([
    t.test('for all threads and connections', assertToldToAll),
    t.test('for a mirror whose registry refuses the blob', async (t) => {
      const { error, misses } = await copyBlobs(t, waiting.image, waiting.host);
      assert.deepEqual([error, misses], [undefined, []]);
      assert.deepEqual(waiting.told(), [[429, 206], [404]]);
    }),
    t.test('and ends the copy at once where all say what nobody waits', async (t) => {
      const { error, misses } = await copyBlobs(t, hopeless.image, hopeless.host);
      assert.equal(error?.code, 'network-hopeless');
      assert.match(error.message, /wait too long: \d+ s after 0 s/);
      assert.deepEqual([misses, hopeless.told()], [[], [[503], [503]]]);
    }),
  ]);
});

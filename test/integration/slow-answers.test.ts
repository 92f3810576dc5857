import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { FaultMatch, FaultRule } from '../../src/sandbox/faults.js';
import { blobsImage, copyBlobs } from '../support/blobs.js';
import { emptyLayout, noise, tarOf, writeTars } from '../support/layout.js';
import { assertProven, layerAsks, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const MANIFESTS = '/manifests/';
const LAYERS = '/blobs/';

function slow(path: string, more: FaultMatch = {}): FaultRule {
  return { match: { path, nth: 1, ...more }, action: { firstByteAfterMs: 1500 } };
}

async function assertWaitedFor(t: TestContext): Promise<void> {
  const image = await blobsImage(t, 1000);
  const faults = [slow(MANIFESTS), slow(LAYERS, { range: 'any' })];
  const registry = await startSandbox(t, { layout: image.layout, faults });
  const timeouts = { connectTimeoutMs: 1000, idleTimeoutMs: 1000 };
  const { error, misses } = await copyBlobs(t, image, registry.host, timeouts);
  assert.deepEqual([error, misses], [undefined, []]);
}

async function assertOneSilence(t: TestContext): Promise<void> {
  const layout = emptyLayout(t);
  const tars = Array.from({ length: 8 }, (_, i) => tarOf({ [`file${i}`]: noise(i + 1, 3000) }));
  await writeTars(t, layout, 'layers', tars);
  const together: FaultRule = {
    match: { path: LAYERS, range: 'any', nth: [1, 4] },
    action: { stallAfterBytes: 0 },
  };
  const registry = await startSandbox(t, { layout, faults: [together] });
  const options = { workers: 8, connections: 4, answerTimeoutMs: 1000, patienceMs: 60_000 };
  const pulled = await pull(`${registry.host}/x:layers`, { store: temporaryDirectory(t), ...options });
  assertProven(pulled.result);
  assert.equal(layerAsks(registry).filter(({ status }) => status === 0).length, 4);
  assert.ok(pulled.result.misses < 4, `${pulled.result.misses} misses`);
  assert.equal(pulled.events.filter(({ event }) => event === 'miss').length, pulled.result.misses);
}

/** First answers of a host that is alive. */
const HICCUPS: readonly FaultRule['action'][] = [{ status: 500 }, { status: 502 }, { closeAfterBytes: 0 }];

async function assertThreeTries(t: TestContext): Promise<void> {
  const image = await blobsImage(t, 1000);
  const asks = async (nth: [number, number], action: FaultRule['action']) => {
    const faults = [{ match: { path: MANIFESTS, nth }, action }];
    const { host, requests } = await startSandbox(t, { layout: image.layout, faults });
    const { error, misses } = await copyBlobs(t, image, host);
    return [error?.code ?? misses.length, requests.filter(({ path }) => path.includes(MANIFESTS)).length];
  };
  const outcomes = await Promise.all([
    ...HICCUPS.map((action) => asks([1, 2], action)),
    asks([1, 9], { status: 503 }),
  ]);
  assert.deepEqual(outcomes, [...HICCUPS.map(() => [2, 3]), ['network-hopeless', 3]]);
}

test('of responses that are late or do not come', { concurrency: true }, async (t) => {
  await Promise.all([
    t.test('a manifest and a range that begin later than the other timeouts are waited for', assertWaitedFor),
    t.test('connections that fall silent together are no failure each', assertOneSilence),
    t.test(
      'the first request, which a living host fails, is asked twice more, and no more than that',
      assertThreeTries,
    ),
  ]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PullError } from '../../src/index.js';
import type { FaultMatch, FaultRule } from '../../src/sandbox/faults.js';
import { emptyLayout, noise, tarOf, writeTars } from '../support/layout.js';
import { assertProven, layerAsks, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const MANIFESTS = '/manifests/';
const LAYERS = '/blobs/';

function slow(path: string, more: FaultMatch = {}): FaultRule {
  return { match: { path, nth: 1, ...more }, action: { firstByteAfterMs: 1500 } };
}

test('a manifest and a range that begin later than the other timeouts are waited for', async (t) => {
  const registry = await startSandbox(t, { faults: [slow(MANIFESTS), slow(LAYERS, { range: 'any' })] });
  const timeouts = { connectTimeoutMs: 1000, idleTimeoutMs: 1000 };
  const { result } = await pull(`${registry.host}/x:chunked-v1`, {
    store: temporaryDirectory(t),
    ...timeouts,
  });
  assertProven(result);
  assert.equal(result.misses, 0);
});

test('connections that fall silent together are no failure each', async (t) => {
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
});

/** First answers of a host that is alive. */
const HICCUPS: readonly FaultRule['action'][] = [{ status: 500 }, { status: 502 }, { closeAfterBytes: 0 }];

test('a first request that a living host fails is asked twice more, and no more than that', async (t) => {
  const asks = async (nth: [number, number], action: FaultRule['action']) => {
    const { host, requests } = await startSandbox(t, {
      faults: [{ match: { path: MANIFESTS, nth }, action }],
    });
    const pulling = pull(`${host}/x:chunked-v1`, { store: temporaryDirectory(t), workers: 1 });
    const misses = await pulling.then(
      ({ result }) => result.misses,
      (error: PullError) => error.code,
    );
    return [misses, requests.filter(({ path }) => path.includes(MANIFESTS)).length];
  };
  const outcomes = await Promise.all([
    ...HICCUPS.map((action) => asks([1, 2], action)),
    asks([1, 9], { status: 503 }),
  ]);
  assert.deepEqual(outcomes, [...HICCUPS.map(() => [2, 3]), ['network-hopeless', 3]]);
});

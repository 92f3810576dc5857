import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FaultMatch, FaultRule } from '../../src/sandbox/faults.js';
import { emptyLayout, noise, tarOf, writeTars } from '../support/layout.js';
import { assertProven, failureOf, layerAsks, pull } from '../support/pull.js';
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
  await assertProven(result);
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
  await assertProven(pulled.result);
  assert.equal(layerAsks(registry).filter(({ status }) => status === 0).length, 4);
  assert.ok(pulled.result.misses < 4, `${pulled.result.misses} misses`);
  assert.equal(pulled.events.filter(({ event }) => event === 'miss').length, pulled.result.misses);
});

for (const [what, action] of [
  ['500', { status: 500 }],
  ['502', { status: 502 }],
  ['503 without Retry-After', { status: 503 }],
  ['an end of the connection', { closeAfterBytes: 0 }],
] as const) {
  test(`a first request that is answered twice with ${what} is asked a third time, and not a fourth`, async (t) => {
    const twice = await startSandbox(t, { faults: [{ match: { path: MANIFESTS, nth: [1, 2] }, action }] });
    const { result } = await pull(`${twice.host}/x:chunked-v1`, { store: temporaryDirectory(t) });
    assert.equal(result.misses, 2);
    const always = await startSandbox(t, { faults: [{ match: { path: MANIFESTS }, action }] });
    const error = await failureOf(pull(`${always.host}/x:chunked-v1`, { store: temporaryDirectory(t) }));
    assert.equal(error.code, 'network-hopeless');
    assert.equal(always.requests.filter(({ path }) => path.includes(MANIFESTS)).length, 3);
  });
}

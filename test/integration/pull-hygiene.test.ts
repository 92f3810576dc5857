import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { openAfter, outcomesOf, startPullingChild } from '../support/child.js';
import { LAYER_DIGEST } from '../support/fixture-layout.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

/** Counts go up and down by one or two; whatever a pull left behind would be there nearly ten times. */
const JITTER = 5;

function assertNothingPilesUp(open: ReturnType<typeof openAfter>): void {
  const [first, last] = [open[0]!, open.at(-1)!];
  assert.ok(last.threads <= first.threads + JITTER, `threads ${first.threads} -> ${last.threads}`);
  assert.ok(last.files <= first.files + JITTER, `files ${first.files} -> ${last.files}`);
}

test('ten pulls in one process leave nothing open, and it ends by itself', async (t) => {
  const registry = await startSandbox(t, { requireToken: {} });
  const child = startPullingChild(t, {
    image: `${registry.host}/x:chunked-v1`,
    options: { store: join(temporaryDirectory(t), 'store{i}'), workers: 2 },
    times: 10,
  });
  assert.equal(await child.gone, 0);
  const outcomes = outcomesOf(child.lines);
  assert.equal(outcomes.length, 10);
  for (const outcome of outcomes) assert.ok('verified' in outcome && outcome.fetchedBytes > 300_000);
  assertNothingPilesUp(openAfter(child.lines));
});

test('ten pulls that fail in one process leave nothing open, and it ends by itself', async (t) => {
  const registry = await startSandbox(t, {
    faults: [{ match: { path: LAYER_DIGEST }, action: { flipByteAt: 200_000 } }],
  });
  const child = startPullingChild(t, {
    image: `${registry.host}/x:chunked-v1`,
    options: { store: join(temporaryDirectory(t), 'store{i}'), workers: 2 },
    times: 10,
  });
  assert.equal(await child.gone, 0);
  const outcomes = outcomesOf(child.lines);
  assert.equal(outcomes.length, 10);
  for (const outcome of outcomes) assert.ok('code' in outcome && outcome.code === 'digest-mismatch');
  assertNothingPilesUp(openAfter(child.lines));
});

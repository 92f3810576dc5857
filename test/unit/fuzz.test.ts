import assert from 'node:assert/strict';
import { test } from 'node:test';
import { search } from '../fuzz/campaign.js';
import { TARGETS } from '../fuzz/targets.js';

/** About two seconds in all; `npm run fuzz` goes on from there. */
const RUNS = 60;

test('no parser fails on what is nearly right in any other way than it says', async () => {
  const turns: string[] = [];
  const found = await search({
    targets: TARGETS.map(({ name }) => name),
    seed: 1,
    runs: RUNS,
    limitMs: 0,
    onTurn: (target) => turns.push(target),
  });
  assert.equal(found, undefined, JSON.stringify(found, undefined, 2));
  assert.deepEqual(turns, [...new Set(TARGETS.map(({ name }) => name))]);
});

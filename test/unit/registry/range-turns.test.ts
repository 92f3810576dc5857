import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turnOfLoop } from 'node:timers/promises';
import { createEndpointState, RangeTurns } from '../../../src/registry/endpoint-state.js';

const A = `sha256:a12${'0'.repeat(61)}`;
const B = `sha256:b12${'0'.repeat(61)}`;

/** Longer than any test. */
const LONG_MS = 600_000;

/** The turns of two threads. */
function twoThreads(responseMs: number, totalMs = LONG_MS): readonly [RangeTurns, RangeTurns] {
  const state = createEndpointState();
  const limits = { responseMs, totalMs };
  return [new RangeTurns(state, limits), new RangeTurns(state, limits)];
}

test('ranges of a blob take turns, on all threads, and those of another blob are not waited for', async () => {
  const [one, other] = twoThreads(LONG_MS);
  const ends: Array<() => void> = [];
  const waiting = [one, other, other].map(async (turns) => ends.push(await turns.acquire(A)));
  const endOfB = await one.acquire(B);
  for (let count = 1; count <= waiting.length; count++) {
    await Promise.race(waiting.slice(count - 1));
    await turnOfLoop();
    assert.equal(ends.length, count);
    ends[count - 1]!();
    ends[count - 1]!();
  }
  await Promise.all(waiting);
  endOfB();
  (await other.acquire(A))();
});

for (const [what, responseMs, totalMs] of [
  ['one response', 5, LONG_MS],
  ['all before it', LONG_MS, 5],
] as const) {
  test(`a range that waited too long for ${what} goes, and no range of that blob waits any more`, async (t) => {
    const [one, other] = twoThreads(responseMs, totalMs);
    // What waits for a turn does not keep a thread going.
    const going = setInterval(() => {}, 1000);
    t.after(() => clearInterval(going));
    const end = await one.acquire(A);
    await Promise.all([one.acquire(A), other.acquire(A)]);
    end();
    await Promise.all([one.acquire(A), other.acquire(A)]);
  });
}

test('one range of all threads claims a full blob, and all others see the claim', () => {
  const [one, other] = twoThreads(LONG_MS);
  assert.equal(other.isFullBlobComing(A), false);
  assert.deepEqual(
    [one.claimFullBlob(A), other.claimFullBlob(A), other.claimFullBlob(B)],
    [true, false, true],
  );
  assert.deepEqual([other.isFullBlobComing(A), one.isFullBlobComing(`${A.slice(0, -1)}1`)], [true, false]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLink, passAll, sliceOf } from '../../../src/sandbox/body.js';

/** A clock that stands still but for sleeps, which it notes and ends at once. */
function sleepyClock(): { sleeps: number[]; now: () => number; sleep: (ms: number) => Promise<void> } {
  let nowMs = 0;
  const sleeps: number[] = [];
  return {
    sleeps,
    now: () => nowMs,
    sleep: async (ms) => {
      sleeps.push(ms);
      nowMs += ms;
    },
  };
}

test('a body on a link takes its size over the rate', async () => {
  const clock = sleepyClock();
  const link = createLink(100_000, clock);
  for (let sent = 0; sent < 50_000; sent += link.sliceBytes()) await link.pass(link.sliceBytes());
  assert.equal(Math.round(clock.now()), 500);
  assert.ok(Math.max(...clock.sleeps) <= 20, `slept ${Math.max(...clock.sleeps)} ms at once`);
});

test('two bodies on one link wait for each other', async () => {
  const sleeps: number[] = [];
  const link = createLink(1000, { now: () => 0, sleep: async (ms) => void sleeps.push(ms) });
  await Promise.all([link.pass(100), link.pass(100), link.pass(50)]);
  assert.deepEqual(sleeps, [100, 200, 250]);
});

test('slices shrink while others wait, down to one byte', async () => {
  const link = createLink(1000, { now: () => 0, sleep: () => new Promise(() => undefined) });
  assert.equal(link.sliceBytes(), 10);
  void link.pass(10);
  void link.pass(10);
  assert.equal(link.sliceBytes(), 5);
  assert.equal(createLink(1).sliceBytes(), 1);
});

test('a link that was idle gives away 20 ms at most', async () => {
  const sleeps: number[] = [];
  let nowMs = 0;
  const link = createLink(1000, { now: () => nowMs, sleep: async (ms) => void sleeps.push(ms) });
  nowMs = 60_000;
  await link.pass(20);
  assert.deepEqual(sleeps, []);
  await link.pass(30);
  assert.deepEqual(sleeps, [30]);
});

test('a body on two links waits for both and takes the smaller slice', async () => {
  const sleeps: number[] = [];
  const clock = { now: () => 0, sleep: async (ms: number) => void sleeps.push(ms) };
  const links = [createLink(1000, clock), createLink(2000, clock)];
  assert.equal(sliceOf(links, 512), 10);
  assert.equal(sliceOf([], 512), 512);
  await passAll(links, 100);
  assert.deepEqual(sleeps, [100, 50]);
});

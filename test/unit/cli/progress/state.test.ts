import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LayerProgress, LayerState, PullEvent } from '../../../../src/api/pull.js';
import {
  advance,
  INITIAL_STATE,
  type ProgressState,
  RateMeter,
  secondsLeft,
  stepOf,
  waits,
} from '../../../../src/cli/progress/state.js';

const PLAN = { fetchBytes: 0, reuseBytes: 0, resumeBytes: 0, requests: 0 };
const WRITTEN = { writtenBytes: 0, verifiedBytes: 0 };

const layer = (digest: string, state: LayerState): LayerProgress => ({
  ...{ digest, state, sizeBytes: 30, totalBytes: 30 },
  ...{ receivedBytes: 0, reusedBytes: 0, resumedBytes: 0 },
});

/** The states after each of these events, a second apart. */
function states(events: readonly PullEvent[]): ProgressState[] {
  let state = INITIAL_STATE;
  return events.map((event, i) => {
    state = advance(state, event, i * 1000);
    return state;
  });
}

const progress = (receivedBytes: number, totalBytes: number) =>
  ({ event: 'progress', receivedBytes, totalBytes, ...WRITTEN }) as const;

test('the step follows a pull', () => {
  const steps = states([
    { event: 'resolving', image: 'alpine' },
    { event: 'resolved', image: 'alpine', digest: 'd', platform: 'p', layers: 2, totalBytes: 100 },
    { event: 'layers', layers: [layer('a', 'waiting'), layer('b', 'waiting')] },
    progress(5, 100),
    { event: 'planned', totalBytes: 60, ...PLAN },
    { event: 'layers', layers: [layer('a', 'done')] },
    progress(60, 60),
    { event: 'layers', layers: [layer('b', 'reused')] },
  ]).map(stepOf);
  const reading = 'reading metadata of 2 layers, 100 B at most';
  const counts = ['0/2 layers', '1/2 layers', 'verifying 1/2 layers', '2/2 layers'];
  assert.deepEqual(steps, ['resolving', reading, reading, reading, ...counts]);
});

test('a wait counts down with the words of the server, until bytes come or it is over', () => {
  const [asked, still, received] = states([
    { event: 'waiting', host: 'example.com', waitMs: 24_000, reason: '"slow down"' },
    progress(0, 60),
    progress(7, 60),
  ]) as [ProgressState, ProgressState, ProgressState];
  assert.deepEqual(waits(asked, 0), [
    [
      'example.com asks to wait and says "slow down"; retrying in 24 s',
      'example.com asks to wait; retrying in 24 s',
      'retrying in 24 s',
    ],
  ]);
  assert.equal(waits(still, 20_000)[0]?.at(-1), 'retrying in 4 s');
  assert.deepEqual(waits(still, 24_000), []);
  assert.deepEqual(waits(received, 3000), []);
});

test('a retry is told of until bytes come again', () => {
  const told = states([
    { event: 'planned', totalBytes: 60, ...PLAN },
    progress(7, 60),
    { event: 'miss', message: 'connection reset' },
    progress(7, 60),
    progress(8, 60),
  ]).map((state) => waits(state, 5000));
  assert.deepEqual(told.slice(1), [
    [],
    [['retrying: connection reset']],
    [['retrying: connection reset']],
    [],
  ]);
});

test('silence is told of from three seconds on, with when it ends the pull', () => {
  const silent = { ...progress(7, 60), silentMs: 2000, givesUpMs: 20_400 };
  const [state, over] = states([silent, progress(7, 60)]) as [ProgressState, ProgressState];
  assert.deepEqual(waits(state, 0), []);
  const told = 'nothing received for 8 s';
  assert.deepEqual(waits(state, 6000), [
    [`${told}; giving up at 20 s, --patience`, `${told}; giving up at 20 s`, told],
  ]);
  assert.deepEqual(waits(over, 6000), []);
});

test('waiting for another process is told of with its time, until this one goes on', () => {
  const [waiting, planned] = states([
    { event: 'waiting-for-layers', layers: 1 },
    { event: 'planned', totalBytes: 60, ...PLAN },
  ]) as [ProgressState, ProgressState];
  assert.equal(waits(waiting, 12_000)[0]?.[0], 'waiting for another process for 12 s');
  assert.deepEqual(waits(planned, 12_000), []);
});

test('the total is exact from the plan on, and the next image begins anew', () => {
  const planned = advance(INITIAL_STATE, { event: 'planned', totalBytes: 60, ...PLAN }, 0);
  assert.deepEqual([planned.exact, planned.totalBytes], [true, 60]);
  assert.equal(advance(planned, { event: 'resolving', image: 'b' }, 0).exact, false);
});

test('what comes beyond the plan is told as fetched again', () => {
  const [, , state] = states([
    { event: 'planned', totalBytes: 1000, ...PLAN },
    { event: 'layers', layers: [layer('a', 'verifying')] },
    progress(6000, 1000),
  ]) as [ProgressState, ProgressState, ProgressState];
  assert.equal(stepOf(state), '0/1 layer, 5.0 kB fetched again');
});

test('the time left is told when it is worth something, and never negative', () => {
  const at = { ...INITIAL_STATE, exact: true, totalBytes: 1000, receivedBytes: 100 };
  const from = { firstByteMs: 1000, lastByteMs: 5000 };
  assert.equal(secondsLeft({ ...at, ...from }, 100, 5000), 9);
  for (const [state, rate, now] of [
    [{ ...at, ...from, exact: false }, 100, 5000],
    [{ ...at, ...from, receivedBytes: 1000 }, 100, 5000],
    [{ ...at, ...from, receivedBytes: 5000 }, 100, 5000],
    [{ ...at, ...from }, 0, 5000],
    [{ ...at, ...from }, 2000, 5000],
    [{ ...at, ...from, firstByteMs: 4000 }, 100, 5000],
    [{ ...at, ...from }, 100, 9000],
    [at, 100, 5000],
  ] as const) {
    assert.equal(secondsLeft(state, rate, now), undefined);
  }
});

test('a steady stream shows its rate from the first step on', () => {
  const meter = new RateMeter(0, 1000);
  assert.equal(meter.bytesPerSecond, 0);
  for (let step = 1; step <= 50; step++) {
    meter.update(step * 1000, 1000 + step * 100);
    assert.ok(Math.abs(meter.bytesPerSecond - 10_000) < 1e-6);
  }
});

test('a stall lets the rate fall smoothly, to a third in three seconds', () => {
  const meter = new RateMeter(0, 0);
  for (let step = 1; step <= 300; step++) meter.update(step * 1000, step * 100);
  for (let step = 301; step <= 330; step++) meter.update(300_000, step * 100);
  assert.ok(Math.abs(meter.bytesPerSecond / 10_000 - Math.exp(-1)) < 0.01);
});

test('steps of no time and bytes that become fewer do no harm', () => {
  const meter = new RateMeter(100, 0);
  meter.update(200, 0);
  meter.update(50, 100);
  assert.equal(meter.bytesPerSecond, 0);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  advance,
  INITIAL_STATE,
  progressLine,
  RateMeter,
} from '../../../../src/cli/progress/text-renderers.js';
import type { PullEvent } from '../../../../src/index.js';

const PLAN = { fetchBytes: 0, reuseBytes: 0, resumeBytes: 0, requests: 0 };
const WRITTEN = { writtenBytes: 0, verifiedBytes: 0 };

function messages(events: readonly PullEvent[]): string[] {
  let state = INITIAL_STATE;
  return events.map((event) => {
    state = advance(state, event);
    return state.message;
  });
}

test('the message follows the steps of a pull', () => {
  const steps = messages([
    { event: 'resolving', image: 'alpine' },
    { event: 'resolved', image: 'alpine', digest: 'd', platform: 'p', layers: 2, totalBytes: 100 },
    { event: 'progress', receivedBytes: 5, totalBytes: 100, ...WRITTEN },
    { event: 'planned', totalBytes: 60, ...PLAN },
    { event: 'layer', diffId: 'd', done: 1, of: 2 },
    { event: 'waiting-for-layers', layers: 1 },
    { event: 'progress', receivedBytes: 60, totalBytes: 60, ...WRITTEN },
  ]);
  assert.deepEqual(steps, [
    'resolving',
    'reading metadata',
    'reading metadata',
    '0/2 layers',
    '1/2 layers',
    'waiting for another process',
    'verifying 1/2 layers',
  ]);
});

test('a wait is told of until bytes come again', () => {
  const told = messages([
    { event: 'waiting', host: 'example.com', waitMs: 1000 },
    { event: 'planned', totalBytes: 60, ...PLAN },
    { event: 'waiting', host: 'example.com', waitMs: 1000 },
    { event: 'progress', receivedBytes: 0, totalBytes: 60, ...WRITTEN },
    { event: 'progress', receivedBytes: 7, totalBytes: 60, ...WRITTEN },
  ]);
  const waiting = 'waiting as example.com asks';
  assert.deepEqual(told, [waiting, '0/0 layers', waiting, waiting, '0/0 layers']);
});

test('a retry is told of until bytes come again', () => {
  const told = messages([
    { event: 'planned', totalBytes: 60, ...PLAN },
    { event: 'progress', receivedBytes: 7, totalBytes: 60, ...WRITTEN },
    { event: 'miss', message: 'connection reset' },
    { event: 'progress', receivedBytes: 7, totalBytes: 60, ...WRITTEN },
    { event: 'progress', receivedBytes: 8, totalBytes: 60, ...WRITTEN },
  ]);
  assert.deepEqual(told.slice(2), ['retrying: connection reset', 'retrying: connection reset', '0/0 layers']);
});

test('the total is exact from the plan on, and the next image begins anew', () => {
  const planned = advance(INITIAL_STATE, { event: 'planned', totalBytes: 60, ...PLAN });
  assert.deepEqual([planned.exact, planned.totalBytes], [true, 60]);
  assert.equal(advance(planned, { event: 'resolving', image: 'b' }).exact, false);
});

test('what comes beyond the plan is told as fetched again', () => {
  const events: PullEvent[] = [
    { event: 'resolved', image: 'x', digest: 'd', platform: 'p', layers: 2, totalBytes: 1000 },
    { event: 'planned', totalBytes: 1000, fetchBytes: 1000, reuseBytes: 0, resumeBytes: 0, requests: 1 },
    { event: 'progress', receivedBytes: 6000, totalBytes: 1000, writtenBytes: 0, verifiedBytes: 0 },
  ];
  const state = events.reduce((last, event) => advance(last, event), INITIAL_STATE);
  assert.equal(state.message, '0/2 layers, 5.0 kB fetched again');
  assert.match(
    progressLine(state, 100, 120),
    /^\[eta 0s\] █{40} {2}1\.0 kB\/1\.0 kB .* 5\.0 kB fetched again$/,
  );
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

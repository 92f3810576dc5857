import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RateMeter } from '../../../../src/cli/progress/progress-state.js';

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

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { predict, type Shares } from '../../../bench/scaling-model.js';

const SHARES: Shares = { startSeconds: 1, allSeconds: 8, mainSeconds: 0.2, layerSeconds: 2, blobBytes: 100 };
const UNLIMITED = Number.POSITIVE_INFINITY;

test('a pull of one layer gets faster until its own thread is what it waits for', () => {
  const times = [1, 2, 4, 8].map((cores) => predict(SHARES, 1, { cores, bytesPerSecond: UNLIMITED }));
  assert.deepEqual(times, [
    { seconds: 9, limit: 'cores' },
    { seconds: 5, limit: 'cores' },
    { seconds: 3, limit: 'cores' },
    { seconds: 3, limit: 'layer' },
  ]);
});

test('more layers than cores take several rounds, and the main thread is the last limit', () => {
  assert.deepEqual(predict(SHARES, 10, { cores: 8, bytesPerSecond: UNLIMITED }), {
    seconds: 2,
    limit: 'cores',
  });
  assert.deepEqual(predict({ ...SHARES, layerSeconds: 8 }, 10, { cores: 8, bytesPerSecond: UNLIMITED }), {
    seconds: 2.6,
    limit: 'layer',
  });
  assert.deepEqual(predict({ ...SHARES, mainSeconds: 0.5 }, 10, { cores: 64, bytesPerSecond: UNLIMITED }), {
    seconds: 1.5,
    limit: 'main thread',
  });
});

test('a network that brings less than the cores take is the limit', () => {
  assert.deepEqual(predict(SHARES, 1, { cores: 8, bytesPerSecond: 20 }), { seconds: 6, limit: 'network' });
});

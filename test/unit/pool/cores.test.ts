import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { test } from 'node:test';
import { parseCpuMax, usableCores } from '../../../src/pool/cores.js';

test('a cgroup quota becomes whole cores, rounded up', () => {
  assert.equal(parseCpuMax('150000 100000\n'), 2);
  assert.equal(parseCpuMax('50000 100000\n'), 1);
  assert.equal(parseCpuMax('400000 100000'), 4);
});

test('no quota, and what is no quota, means no limit', () => {
  for (const text of ['max 100000\n', '', 'x y', '0 100000', '-1 100000', '100000 0']) {
    assert.equal(parseCpuMax(text), Number.POSITIVE_INFINITY, JSON.stringify(text));
  }
});

test('usable cores are at least one and at most what the scheduler allows', () => {
  const cores = usableCores();
  assert.ok(cores >= 1 && cores <= availableParallelism() && Number.isInteger(cores));
});

import assert from 'node:assert/strict';
import { cpus } from 'node:os';
import { test } from 'node:test';
import { watchMachine } from '../../../src/measure/machine.js';

function busyMs(): number {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0);
}

test('work of this process around a run, such as copying a store, is not that of others', () => {
  const before = busyMs();
  const watch = watchMachine(performance.now() - 5000);
  const start = process.cpuUsage();
  while (process.cpuUsage(start).user < 300_000);
  const { foreignShare, startedAtMs } = watch(0);
  const allMs = busyMs() - before;
  // The kernel counts in ticks of 10 ms a core.
  const mostMs = allMs - 300 + 10 * cpus().length;
  assert.ok(foreignShare! <= Math.max(0, mostMs / allMs) + 0.01, `${foreignShare} of ${allMs} ms`);
  assert.ok(startedAtMs >= 4999 && startedAtMs < 60_000);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createCounters, largeWindowsOf } from '../../../../src/pool/shared-memory.js';
import { largeWindows } from '../../../../workers/opaque/large-windows.js';

const MIB = 2 ** 20;

/** The most bytes of windows that threads have at a time, each of which asks for one of these. */
async function mostAtATime(sizes: readonly number[]): Promise<number> {
  const counters = createCounters();
  let having = 0;
  let most = 0;
  await Promise.all(
    sizes.map(async (bytes) => {
      const release = await largeWindows(largeWindowsOf(counters)).acquire(bytes);
      having += bytes;
      most = Math.max(most, having);
      await sleep(1);
      having -= bytes;
      release();
    }),
  );
  return most;
}

test('windows of all threads have 256 MiB together, and a larger one is alone', async () => {
  assert.equal(await mostAtATime([128 * MIB, 128 * MIB, 128 * MIB]), 256 * MIB);
  assert.equal(await mostAtATime([2048 * MIB, 32 * MIB, 512 * MIB]), 2048 * MIB);
});

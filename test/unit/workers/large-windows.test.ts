import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createCounters, largeWindowLockOf } from '../../../src/pool/counters.js';
import { largeWindows } from '../../../workers/large-windows.js';

test('one stream at a time decodes with a large window, whichever thread asks', async () => {
  const counters = createCounters();
  const threads = Array.from({ length: 3 }, () => largeWindows(largeWindowLockOf(counters)));
  let having = 0;
  await Promise.all(
    threads.map(async ({ take }) => {
      const end = await take();
      having += 1;
      assert.equal(having, 1);
      await sleep(1);
      having -= 1;
      end();
    }),
  );
});

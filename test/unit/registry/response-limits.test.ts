import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createIdleTimer } from '../../../src/registry/response-limits.js';

test('silence is reported once', async () => {
  let told = 0;
  const timer = createIdleTimer(
    { answerTimeoutMs: 10, idleTimeoutMs: 10 },
    () => false,
    () => told++,
  );
  timer.start();
  while (told === 0) await sleep(5);
  assert.equal(timer.expired(), true);
  timer.stop();
});

test('a pause is no silence, but silence after it is', async () => {
  let holding = true;
  let told = false;
  const timer = createIdleTimer(
    { answerTimeoutMs: 5, idleTimeoutMs: 5 },
    () => holding,
    () => {
      assert.equal(holding, false);
      told = true;
    },
  );
  timer.start();
  await sleep(40);
  assert.equal(timer.expired(), false);
  holding = false;
  while (!told) await sleep(5);
});

test('bytes buffered while the loop was busy count before the silence', async () => {
  let told = false;
  const timer = createIdleTimer(
    { answerTimeoutMs: 200, idleTimeoutMs: 200 },
    () => false,
    () => {
      told = true;
    },
  );
  timer.start();
  await new Promise<void>((resolve) => {
    setTimeout(() => {
      // The timer fires in the next turn, then what has arrived is read.
      setImmediate(() => {
        setImmediate(() => {
          timer.progress();
          setImmediate(resolve);
        });
      });
      const busyUntilMs = performance.now() + 250;
      while (performance.now() < busyUntilMs);
    }, 1);
  });
  assert.equal(told, false);
  timer.stop();
});

test('responses and bodies have different timeouts', async () => {
  const told: string[] = [];
  const timer = createIdleTimer(
    { answerTimeoutMs: 3_600_000, idleTimeoutMs: 5 },
    () => false,
    (phase) => told.push(phase),
  );
  timer.start();
  timer.responseStarted();
  await sleep(40);
  assert.deepEqual(told, []);
  timer.progress();
  while (told.length === 0) await sleep(5);
  assert.deepEqual(told, ['idle']);
  timer.stop();
});

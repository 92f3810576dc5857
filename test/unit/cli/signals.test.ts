import assert from 'node:assert/strict';
import { test } from 'node:test';
import { untilSignal } from '../../../src/cli/signals.js';
import { PullError } from '../../../src/index.js';

for (const [name, code] of [
  ['SIGINT', 'interrupted'],
  ['SIGTERM', 'terminated'],
] as const) {
  test(`${name} aborts the work, and it fails as ${code} whatever it throws itself`, async () => {
    const listeners = process.listenerCount(name);
    const work = untilSignal(async (signal) => {
      process.emit(name, name);
      assert.equal(signal.aborted, true);
      throw new Error('a thread died');
    });
    await assert.rejects(work, (error) => error instanceof PullError && error.code === code);
    assert.equal(process.listenerCount(name), listeners);
  });
}

test('who stops it is told where what was received is, if it is anywhere', async () => {
  const messages = [undefined, 'in the store', 'at the destination'] as const;
  for (const kept of messages) {
    const work = untilSignal(async () => process.emit('SIGINT', 'SIGINT') && Promise.reject(), kept);
    const { message } = (await work.catch((error: Error) => error as Error)) as Error;
    const more = kept === undefined ? '' : `; what was received stays ${kept}`;
    assert.equal(message, `interrupted by SIGINT${more}`);
  }
});

test('work that nobody stops gives its value or its own error', async () => {
  assert.equal(await untilSignal(async () => 7), 7);
  await assert.rejects(
    untilSignal(async () => {
      throw new Error('its own');
    }),
    /its own/,
  );
});

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { PullError } from '../../../src/api/errors.js';
import { untilSignal } from '../../../src/cli/signals.js';
import { skipUnless } from '../../support/programs.js';
import { temporaryDirectory } from '../../support/temporary.js';

const SIGNALS = new URL('../../../src/cli/signals.js', import.meta.url).href;

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

test('the second signal ends the process, whatever its threads wait for', {
  skip: skipUnless('mkfifo'),
}, async (t) => {
  const pipe = join(temporaryDirectory(t), 'pipe');
  execFileSync('mkfifo', [pipe]);
  const thread = `require('node:worker_threads').parentPort.postMessage(0); require('node:fs').openSync(${JSON.stringify(pipe)}, 'w')`;
  const program = `
    import { Worker } from 'node:worker_threads';
    import { untilSignal } from ${JSON.stringify(SIGNALS)};
    const thread = new Worker(${JSON.stringify(thread)}, { eval: true, execArgv: [] });
    thread.once('message', () => setTimeout(() => console.log('waits'), 100));
    await untilSignal((signal) => {
      signal.addEventListener('abort', () => console.log('aborted'));
      return new Promise(() => {});
    });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 30_000,
    killSignal: 'SIGKILL',
  });
  const exit = once(child, 'exit');
  for await (const _ of createInterface({ input: child.stdout })) child.kill('SIGINT');
  assert.deepEqual(await exit, [null, 'SIGINT']);
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

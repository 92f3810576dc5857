import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runChild } from '../../../src/measure/child.js';

test('the CPU time of a program is its own and that of programs that it waited for, start-up included', {
  skip: process.platform !== 'linux' && 'it is read from /proc',
}, async () => {
  const busy = 'while (process.cpuUsage().user < 200_000);';
  const { signal } = new AbortController();
  const env = { ...process.env, busy };
  const { code, cpuSeconds } = await runChild('sh', ['-c', 'node -e "$busy"; node -e "$busy"'], {
    signal,
    env,
  });
  assert.equal(code, 0);
  assert.ok(cpuSeconds !== null && cpuSeconds >= 0.4, `${cpuSeconds} s`);
  const quiet = await runChild('sh', ['-c', ':'], { signal });
  assert.ok((quiet.cpuSeconds ?? 0) < 0.4);
});

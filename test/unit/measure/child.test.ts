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

test('a program that leaves a daemon with its output open has ended when it ends', async () => {
  const { signal } = new AbortController();
  const daemon = `setsid sh -c 'echo $$; exec sleep 60 >&2'`;
  const script = `exec 3< <(${daemon}); read pid <&3; echo $pid; echo done >&2`;
  const { code, stdout, stderr } = await runChild('bash', ['-c', script], { signal });
  process.kill(Number(stdout), 'SIGKILL');
  assert.deepEqual([code, stderr], [0, 'done\n']);
});

test('of endless output the end is kept, and of an endless line the beginning', async () => {
  const { signal } = new AbortController();
  const lengths: number[] = [];
  const script =
    'x() { head -c 20M /dev/zero | tr "\\0" x; }; x; echo; echo end; x >&2; echo >&2; echo last >&2';
  const { stdout, stderr } = await runChild('bash', ['-c', script], {
    signal,
    onLine: ({ length }) => void lengths.push(length),
  });
  assert.deepEqual([stdout.length, stdout.slice(-6)], [2 ** 24, 'x\nend\n']);
  assert.match(stderr, /^x+\nlast\n$/);
  assert.deepEqual(lengths, [2 ** 16, 4]);
});

test('a program that takes too long is killed', async () => {
  const { signal } = new AbortController();
  const ended = runChild('bash', ['-c', 'sleep 60 & sleep 60'], { signal, timeoutMs: 50 });
  await assert.rejects(ended, /^Error: did not end within 0\.1 s$/);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { asOutOfResources } from '../../../src/format/out-of-resources.js';

test('a module or a thread that finds no file to open is told as the lack of files, with what to do', () => {
  const path = '/zpull/dist/pull.js';
  const opening = Object.assign(new Error(`EMFILE: too many open files, open '${path}'`), { path });
  const starting = new Error('Worker initialization failure: ENFILE');
  const [first, second] = [opening, starting].map(asOutOfResources) as [PullError, PullError];
  assert.ok(first instanceof PullError && second instanceof PullError);
  assert.equal(first.message, `could not open ${path}: this process has too many open files (EMFILE)`);
  assert.equal(second.message, 'could not start a thread: the system has too many open files (ENFILE)');
  assert.deepEqual([first.exitCode, second.exitCode, first.cause], [7, 7, opening]);
  assert.match(first.hint!, /ulimit -n/);
});

test('what the system refuses is told with the limit that is too low', () => {
  const node = (message: string, code: string) => Object.assign(new Error(message), { code });
  const told = [
    [node('EAGAIN', 'ERR_WORKER_INIT_FAILED'), 'start a thread', 'ulimit -u'],
    [node('Worker initialization failure: EAGAIN', 'ERR_WORKER_INIT_FAILED'), 'start a thread', 'pids.max'],
    [node('EMFILE', 'ERR_WORKER_INIT_FAILED'), 'start a thread', 'ulimit -n'],
    [node('ENOMEM', 'ERR_WORKER_INIT_FAILED'), 'start a thread', 'memory'],
    [node('spawn /usr/bin/zstd EAGAIN', 'EAGAIN'), 'start /usr/bin/zstd', 'ulimit -u'],
    [node('spawn docker-credential-x ENOMEM', 'ENOMEM'), 'start docker-credential-x', 'memory'],
    [node('ENOMEM: not enough memory, open', 'ENOMEM'), 'open a file', 'memory'],
  ] as const;
  for (const [error, doing, hint] of told) {
    const said = asOutOfResources(error);
    assert.ok(said instanceof PullError, error.message);
    assert.ok(said.message.startsWith(`could not ${doing}: `), said.message);
    assert.ok(said.hint.includes(hint), said.hint);
    assert.equal(said.exitCode, 7);
  }
});

test('every other error stays what it is', () => {
  const errors = [
    new Error('ENOENT: no such file'),
    new Error('MYEMFILES'),
    Object.assign(new Error('EAGAIN: resource temporarily unavailable, read'), { code: 'EAGAIN' }),
    new Error("ENOENT: no such file or directory, open '/srv/EMFILE/x'"),
    new PullError('internal', 'EMFILE'),
    'EMFILE',
  ];
  for (const error of errors) assert.equal(asOutOfResources(error), error);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { asOutOfFiles } from '../../../src/format/out-of-files.js';

test('a module or a thread that finds no file to open is told as the lack of files, with what to do', () => {
  const path = '/zpull/dist/pull.js';
  const opening = Object.assign(new Error(`EMFILE: too many open files, open '${path}'`), { path });
  const starting = new Error('Worker initialization failure: ENFILE');
  const [first, second] = [opening, starting].map(asOutOfFiles) as [PullError, PullError];
  assert.ok(first instanceof PullError && second instanceof PullError);
  assert.equal(first.message, `could not open ${path}: this process has too many open files (EMFILE)`);
  assert.equal(second.message, 'could not start a thread: the system has too many open files (ENFILE)');
  assert.deepEqual([first.exitCode, second.exitCode, first.cause], [7, 7, opening]);
  assert.match(first.hint!, /ulimit -n/);
});

test('every other error stays what it is', () => {
  const errors = [
    new Error('ENOENT: no such file'),
    new Error('MYEMFILES'),
    new Error("ENOENT: no such file or directory, open '/srv/EMFILE/x'"),
    new PullError('internal', 'EMFILE'),
    'EMFILE',
  ];
  for (const error of errors) assert.equal(asOutOfFiles(error), error);
});

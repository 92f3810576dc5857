import assert from 'node:assert/strict';
import fs, { closeSync, openSync, readFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  asOutOfResources,
  ifExists,
  outsideStore,
  storageError,
  wrapFsError,
  wrapFsErrorAsync,
  writeFully,
} from '../../../src/files/storage-error.js';
import { PullError } from '../../../src/format/error.js';
import { freshStore } from '../store/support.js';

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: from the system`), { code });
}

test('errors of the system get the code that says what to do about them', () => {
  const codes = {
    'store-full': ['ENOSPC', 'EDQUOT'],
    'store-denied': ['EACCES', 'EPERM', 'EROFS'],
    'store-broken': [
      'EMFILE',
      'ENFILE',
      'EIO',
      'ENOTDIR',
      'ENOENT',
      'EFBIG',
      'EISDIR',
      'ELOOP',
      'EEXIST',
      'EBADMSG',
    ],
  };
  for (const [code, names] of Object.entries(codes)) {
    for (const name of names) {
      const error = storageError(systemError(name), 'write 5 bytes to /store/file');
      assert.ok(error instanceof PullError);
      assert.equal(error.code, code, name);
      assert.match(error.message, new RegExp(`^could not write 5 bytes to /store/file: .+ \\(${name}\\)$`));
      assert.ok(error.hint);
    }
  }
});

test('an existing name is reported as such', () => {
  const { message } = storageError(systemError('EEXIST'), 'make /x') as PullError;
  assert.equal(message, 'could not make /x: something else stands there already (EEXIST)');
});

test('what is no system error passes unchanged', async () => {
  const mistake = new TypeError('a mistake');
  const known = new PullError('internal', 'known');
  assert.equal(storageError(mistake, 'x'), mistake);
  assert.equal(storageError(known, 'x'), known);
  assert.equal(
    storageError(Object.assign(new Error(), { code: 'ERR_INVALID_ARG_TYPE' }), 'x') instanceof PullError,
    false,
  );
  assert.throws(() => wrapFsError('x', () => assert.fail(mistake)), mistake);
  await assert.rejects(
    wrapFsErrorAsync('x', () => Promise.reject(systemError('EIO'))),
    { code: 'store-broken' },
  );
});

test('only an absent file is no error', () => {
  const fail = (code: string) => () => {
    throw systemError(code);
  };
  assert.equal(ifExists('x', fail('ENOENT')), undefined);
  assert.throws(() => ifExists('x', fail('EACCES')), { code: 'store-denied' });
});

test('a short write is continued where it stopped', (t) => {
  const path = join(freshStore(t).root, 'file');
  const real = fs.writeSync as (
    fd: number,
    bytes: Uint8Array,
    start: number,
    length: number,
    position: number,
  ) => number;
  const mock = t.mock.method(
    fs,
    'writeSync',
    (fd: number, bytes: Uint8Array, start: number, length: number, position: number) =>
      real(fd, bytes, start, Math.min(length, 3), position),
  );
  syncBuiltinESMExports();
  t.after(() => {
    mock.mock.restore();
    syncBuiltinESMExports();
  });
  const fd = openSync(path, 'wx');
  writeFully(fd, path, Buffer.from('0123456789'), 2);
  closeSync(fd);
  assert.equal(mock.mock.callCount(), 4);
  assert.equal(readFileSync(path, 'latin1'), '\0\x000123456789');
});

test('a full disk is named with how much went where', {
  skip: process.platform !== 'linux' && 'needs /dev/full',
}, () => {
  const fd = openSync('/dev/full', 'w');
  try {
    assert.throws(() => writeFully(fd, '/dev/full', Buffer.alloc(10), 0), {
      code: 'store-full',
      message: 'could not write 10 bytes to /dev/full: no space is left on the device (ENOSPC)',
    });
  } finally {
    closeSync(fd);
  }
});

test('what fails outside the store has a hint that is not about the store', () => {
  const error = storageError(systemError('ENOSPC'), 'write /else/where') as PullError;
  for (const told of [outsideStore(error, '/the/store'), outsideStore(error)] as PullError[]) {
    assert.deepEqual([told.code, told.message], ['store-full', error.message]);
    assert.match(told.hint!, /another destination/);
  }
  for (const root of ['/else', '/else/where', '/else/']) assert.equal(outsideStore(error, root), error, root);
  for (const root of ['/else/whe', '/where', '/els'])
    assert.match((outsideStore(error, root) as PullError).hint!, /another destination/, root);
  const wrong = storageError(systemError('EISDIR'), 'write /else/where');
  assert.match((outsideStore(wrong, '/the/store') as PullError).hint!, /the destination you mean/);
  const other = storageError(systemError('EIO'), 'write /else/where');
  assert.equal(outsideStore(other), other);
});

test('a module or thread that fails for lack of open files says so, with a hint', () => {
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

test('a refusal of the system names the limit that is too low', () => {
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

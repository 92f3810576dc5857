import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, linkSync, mkdirSync, openSync, symlinkSync, writeFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Input, readFileOrPipe, readRegularFile } from '../../../src/files/read-input.js';
import { skipUnless } from '../../support/programs.js';
import { temporaryDirectory } from '../../support/temporary.js';

const MAX_BYTES = 2 ** 20;
const FIFOS = { skip: skipUnless('mkfifo', 'sh') };

/** The text of what was read, or why it was not. */
function told(input: Input): string {
  return 'bytes' in input ? `read ${input.bytes.toString()}` : `${input.kind}: ${input.problem}`;
}

function fifoIn(t: TestContext): string {
  const path = join(temporaryDirectory(t), 'fifo');
  execFileSync('mkfifo', [path]);
  return path;
}

/** A shell that runs until the test ends. */
function startShell(t: TestContext, script: string, ...words: string[]): ChildProcess {
  const child = spawn('sh', ['-c', script, 'sh', ...words], { stdio: ['ignore', 'ignore', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  return child;
}

test('a regular file is read, through links too, up to the limit', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'file');
  writeFileSync(path, 'text');
  symlinkSync('file', join(directory, 'link'));
  symlinkSync('link', join(directory, 'link-to-link'));
  linkSync(path, join(directory, 'name'));
  for (const name of ['file', 'link', 'link-to-link', 'name']) {
    assert.equal(told(readRegularFile(join(directory, name), 4)), 'read text');
    assert.equal(told(await readFileOrPipe(join(directory, name), 4)), 'read text');
  }
  writeFileSync(path, Buffer.alloc(MAX_BYTES + 1));
  assert.equal(told(readRegularFile(path, MAX_BYTES)), 'unfit: is larger than 1 MiB');
  assert.match(told(readRegularFile(path, MAX_BYTES + 1)), /^read/);
  // Files of the kernel say that they are empty.
  assert.match(told(readRegularFile('/proc/self/status', MAX_BYTES)), /^read Name:/);
});

test('a missing file is distinguished from an unreadable one', async (t) => {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'file'), '');
  symlinkSync('nowhere', join(directory, 'dangling'));
  symlinkSync('loop', join(directory, 'loop'));
  for (const [name, problem] of [
    ['none', 'absent: is not there'],
    ['file/none', 'absent: is not there'],
    ['dangling', 'absent: is not there'],
    ['loop', 'unreadable: cannot be read (ELOOP)'],
    ['x'.repeat(300), 'unreadable: cannot be read (ENAMETOOLONG)'],
  ] as const) {
    assert.equal(told(readRegularFile(join(directory, name), MAX_BYTES)), problem);
    assert.equal(told(await readFileOrPipe(join(directory, name), MAX_BYTES)), problem);
  }
});

test('a device, a directory, a socket or a pipe without a writer is refused at once', FIFOS, async (t) => {
  const directory = temporaryDirectory(t);
  const socket = join(directory, 'socket');
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.after(() => server.close());
  mkdirSync(join(directory, 'directory'));
  symlinkSync('/dev/zero', join(directory, 'zero'));
  for (const path of [
    '/dev/zero',
    '/dev/urandom',
    '/dev/full',
    '/dev/tty',
    socket,
    join(directory, 'zero'),
  ]) {
    assert.equal(told(readRegularFile(path, MAX_BYTES)), 'unfit: is not a regular file', path);
    assert.equal(told(await readFileOrPipe(path, MAX_BYTES)), 'unfit: is not a regular file', path);
  }
  assert.equal(told(readRegularFile(join(directory, 'directory'), MAX_BYTES)), 'unfit: is a directory');
  const fifo = fifoIn(t);
  assert.equal(told(readRegularFile(fifo, MAX_BYTES)), 'unfit: is not a regular file');
  assert.equal(told(await readFileOrPipe(fifo, MAX_BYTES)), 'unfit: is a pipe that nobody writes to');
});

test('the null device is an empty file', async () => {
  assert.equal(told(readRegularFile('/dev/null', MAX_BYTES)), 'read ');
  assert.equal(told(await readFileOrPipe('/dev/null', MAX_BYTES)), 'read ');
});

test('a pipe with a writer is read to its end, once for all readers', FIFOS, async (t) => {
  const fifo = fifoIn(t);
  // Open for writing here too, it has a writer before the shell begins.
  const ours = openSync(fifo, 'r+');
  const shell = startShell(t, '{ printf a; sleep 0.1; printf b; } > "$1"', fifo);
  const both = [readFileOrPipe(fifo, MAX_BYTES), readFileOrPipe(fifo, MAX_BYTES)];
  await once(shell, 'exit');
  closeSync(ours);
  assert.deepEqual((await Promise.all(both)).map(told), ['read ab', 'read ab']);
  assert.equal(told(await readFileOrPipe(fifo, MAX_BYTES)), 'read ab');
});

test('what pipes had is kept for the last sixteen of them', FIFOS, async (t) => {
  const fifos = Array.from({ length: 17 }, () => fifoIn(t));
  for (const fifo of fifos) {
    const ours = openSync(fifo, 'r+');
    writeSync(ours, 'secret');
    const reading = readFileOrPipe(fifo, MAX_BYTES);
    closeSync(ours);
    assert.equal(told(await reading), 'read secret');
  }
  assert.equal(told(await readFileOrPipe(fifos[0]!, MAX_BYTES)), 'unfit: is a pipe that nobody writes to');
  assert.equal(told(await readFileOrPipe(fifos[1]!, MAX_BYTES)), 'read secret');
});

test('a pipe has a limit, and the wait for it ends when it is stopped', FIFOS, async (t) => {
  const [full, silent] = [fifoIn(t), fifoIn(t)];
  const ours = [full, silent].map((path) => openSync(path, 'r+'));
  t.after(() => ours.map(closeSync));
  startShell(t, 'exec cat /dev/zero > "$1"', full);
  assert.equal(told(await readFileOrPipe(full, MAX_BYTES)), 'unfit: is larger than 1 MiB');
  const stop = new AbortController();
  const reading = readFileOrPipe(silent, MAX_BYTES, stop.signal);
  stop.abort();
  assert.equal(told(await reading), 'unfit: is a pipe that was not waited for');
});

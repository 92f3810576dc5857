import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { UnfinishedDirectory, UnfinishedFile } from '../../../src/export/output-files.js';
import { OpenDirectory } from '../../../src/files/open-directory.js';
import { pidNamespaceId } from '../../../src/files/process-id.js';
import { failureOf } from '../../support/pull.js';
import { temporaryDirectory } from '../../support/temporary.js';

/** Any user but root. */
const NOBODY = 65_534;
const isRoot = process.geteuid?.() === 0;
const skip = process.platform !== 'linux' && 'no process namespaces here';
const ID = '0'.repeat(16);

function hold(t: TestContext, path: string): OpenDirectory {
  const held = OpenDirectory.hold(path);
  t.after(() => held.close());
  return held;
}

/** The number of a process that has ended. */
function deadPid(): number {
  return spawnSync(process.execPath, ['--version']).pid;
}

/** Has an export of x.tar look for what others left, and takes away what it made itself. */
async function lookFor(t: TestContext, directory: string): Promise<void> {
  await (await UnfinishedFile.create(hold(t, directory), 'x.tar')).discard();
}

test('what killed processes left goes, what may still be written stays', { skip }, async (t) => {
  const directory = temporaryDirectory(t);
  const place = pidNamespaceId();
  const [gone, another] = [deadPid(), deadPid()];
  const elsewhere = '0123456789abcdef';
  const left = [
    `x.tar.part-${gone}-${place}-${ID}`,
    `x.tar.part-${another}-${place}-${ID}`,
    // Of one before this process that had the same number.
    `x.tar.part-${process.pid}-${place}-${ID}`,
  ];
  writeFileSync(join(directory, left[2]!), '');
  await sleep(50); // the clock of files goes by ticks
  const startMs = Date.now();
  t.mock.method(process, 'uptime', () => (Date.now() - startMs) / 1000);
  await sleep(50);
  const perhapsAlive = [gone, process.pid].flatMap((pid) => [
    `x.tar.part-${pid}-${elsewhere}-${ID}`,
    `x.tar.part-${pid}--${ID}`,
  ]);
  const kept = [
    // Of another thread of this one, say.
    `x.tar.part-${process.pid}-${place}-${'1'.repeat(16)}`,
    `x.tar.part-${process.ppid}-${place}-${ID}`,
    `y.tar.part-${gone}-${place}-${ID}`,
    `x.tar.part-${gone}-${place}-${ID}.mine`,
    'x.tar',
  ];
  mkdirSync(join(directory, left[1]!, 'etc'), { recursive: true });
  for (const name of [left[0]!, ...perhapsAlive, ...kept]) writeFileSync(join(directory, name), '');
  await lookFor(t, directory);
  assert.deepEqual(readdirSync(directory).sort(), [...kept, ...perhapsAlive].sort());
  for (const name of [...kept, ...perhapsAlive]) utimesSync(join(directory, name), 1, 1);
  await lookFor(t, directory);
  assert.deepEqual(
    readdirSync(directory).sort(),
    [...kept, ...perhapsAlive].sort(),
    'a root may be that old',
  );
  const now = Date.now.bind(Date);
  t.mock.method(Date, 'now', () => now() + 25 * 3_600_000);
  await lookFor(t, directory);
  assert.deepEqual(readdirSync(directory).sort(), kept.sort());
});

/** What another process may have left of x.tar: a directory with a file, in `directory`. */
function leave(directory: string): string {
  const left = join(directory, `x.tar.part-${deadPid()}-${pidNamespaceId()}-${ID}`);
  mkdirSync(left);
  writeFileSync(join(left, 'file'), '');
  return left;
}

test('where others may write nothing is removed by its name', { skip }, async (t) => {
  const directory = temporaryDirectory(t);
  const left = leave(directory);
  for (const mode of [0o777, 0o1777, 0o770]) {
    chmodSync(directory, mode);
    await lookFor(t, directory);
    assert.ok(existsSync(join(left, 'file')), mode.toString(8));
  }
  chmodSync(directory, 0o755);
  if (isRoot) {
    chownSync(directory, NOBODY, NOBODY);
    await lookFor(t, directory);
    assert.ok(existsSync(join(left, 'file')), 'the directory of another user');
    chownSync(directory, 0, 0);
    chownSync(left, NOBODY, NOBODY);
    await lookFor(t, directory);
    assert.ok(existsSync(join(left, 'file')), 'what belongs to another user');
    chownSync(left, 0, 0);
  }
  const secret = temporaryDirectory(t);
  writeFileSync(join(secret, 'file'), '');
  symlinkSync(secret, left.replace(ID, '1'.repeat(16)));
  symlinkSync(secret, join(left, 'link'));
  await lookFor(t, directory);
  assert.deepEqual([readdirSync(directory).length, readdirSync(secret)], [1, ['file']]);
});

test('a directory that cannot be read is no error before the write', async (t) => {
  const directory = temporaryDirectory(t);
  asNobody(t, directory);
  chmodSync(directory, 0o300);
  await lookFor(t, directory);
  chmodSync(directory, 0o700);
  assert.deepEqual(readdirSync(directory), []);
});

test('a file gets its name when it is whole; one that is not goes', async (t) => {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, 'x.tar'), 'from before');
  const held = hold(t, directory);
  const [kept, gone] = [
    await UnfinishedFile.create(held, 'x.tar'),
    await UnfinishedFile.create(held, 'x.tar'),
  ];
  writeSync(kept.fd, 'new');
  assert.equal(readFileSync(join(directory, 'x.tar'), 'utf8'), 'from before');
  await kept.publish();
  await kept.discard();
  await gone.discard();
  assert.deepEqual(readdirSync(directory), ['x.tar']);
  assert.equal(readFileSync(join(directory, 'x.tar'), 'utf8'), 'new');
});

test('what another user put in the place of an unfinished file gets no name and stays', async (t) => {
  const directory = temporaryDirectory(t);
  const file = await UnfinishedFile.create(hold(t, directory), 'x.tar');
  renameSync(file.path, join(directory, 'moved'));
  writeFileSync(file.path, 'planted');
  const { code } = await failureOf(file.publish());
  await file.discard();
  assert.deepEqual([code, readFileSync(file.path, 'utf8')], ['store-broken', 'planted']);
  assert.equal(existsSync(join(directory, 'x.tar')), false);
});

test('what is not finished goes, with names that are no text and directories that are closed already', async (t) => {
  const root = temporaryDirectory(t);
  asNobody(t, root);
  const unfinished = await UnfinishedDirectory.create(hold(t, root), 'x');
  t.after(() => unfinished.opened.close());
  const { path } = unfinished;
  mkdirSync(join(path, 'open', 'closed'), { recursive: true });
  for (const name of ['top', 'open/in', 'open/closed/deep'])
    writeFileSync(Buffer.from(`${path}/${name}-caf\xe9`, 'latin1'), '');
  symlinkSync('/', join(path, 'open/link'));
  chmodSync(join(path, 'open/closed'), 0o555);
  chmodSync(join(path, 'open'), 0o500);
  chmodSync(path, 0o500);
  await unfinished.discard();
  assert.deepEqual(readdirSync(root), []);
});

/** Goes on as a user whom modes stop, who has the directory. */
function asNobody(t: TestContext, directory: string): void {
  if (!isRoot) return;
  chownSync(directory, NOBODY, NOBODY);
  process.seteuid!(NOBODY);
  t.after(() => process.seteuid!(0));
}

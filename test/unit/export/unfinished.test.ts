import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { emptyDirectory, removeUnfinished, unfinishedName } from '../../../src/export/unfinished.js';
import { temporaryDirectory } from '../../support/temporary.js';

/** Any user but root. */
const NOBODY = 65_534;

test('what killed processes left goes, what may still be written stays', {
  skip: process.platform !== 'linux' && 'no process namespaces here',
}, async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'x.tar');
  const own = basename(await unfinishedName(path));
  const [, place] = /^x\.tar\.part-\d+-([0-9a-f]{16})-[0-9a-f]{8}$/.exec(own)!;
  const [gone, another] = [1, 2].map(() => spawnSync(process.execPath, ['--version']).pid);
  const elsewhere = '0123456789abcdef';
  const id = '00000000';
  const left = [
    `x.tar.part-${gone}-${place}-${id}`,
    `x.tar.part-${another}-${place}-${id}`,
    // Of one before this process that had the same number.
    `x.tar.part-${process.pid}-${place}-${id}`,
  ];
  writeFileSync(join(directory, left[2]!), '');
  await sleep(50); // the clock of files goes by ticks
  const startMs = Date.now();
  t.mock.method(process, 'uptime', () => (Date.now() - startMs) / 1000);
  await sleep(50);
  const perhapsAlive = [gone, process.pid].flatMap((pid) => [
    `x.tar.part-${pid}-${elsewhere}-${id}`,
    `x.tar.part-${pid}--${id}`,
  ]);
  const kept = [
    own,
    // Of another thread of this one, say.
    `x.tar.part-${process.pid}-${place}-11111111`,
    `x.tar.part-${process.ppid}-${place}-${id}`,
    `y.tar.part-${gone}-${place}-${id}`,
    `x.tar.part-${gone}-${place}-${id}.mine`,
    'x.tar',
  ];
  mkdirSync(join(directory, left[1]!, 'etc'), { recursive: true });
  for (const name of [left[0]!, ...perhapsAlive, ...kept]) writeFileSync(join(directory, name), '');
  assert.notEqual(basename(await unfinishedName(path)), own);
  assert.deepEqual(readdirSync(directory).sort(), [...kept, ...perhapsAlive].sort());
  for (const name of [...kept, ...perhapsAlive]) utimesSync(join(directory, name), 1, 1);
  await unfinishedName(path);
  assert.deepEqual(
    readdirSync(directory).sort(),
    [...kept, ...perhapsAlive].sort(),
    'a root may be that old',
  );
  const now = Date.now.bind(Date);
  t.mock.method(Date, 'now', () => now() + 25 * 3_600_000);
  await unfinishedName(path);
  assert.deepEqual(readdirSync(directory).sort(), kept.sort());
});

test('a directory that cannot be read is left to whoever writes there', async (t) => {
  const path = join(temporaryDirectory(t), 'none', 'x.tar');
  assert.ok((await unfinishedName(path)).startsWith(`${path}.part-`));
});

test('what is not finished goes, with names that are no text and directories that are closed already', async (t) => {
  const root = temporaryDirectory(t);
  const unfinished = join(root, 'unfinished');
  asNobody(t, root);
  const make = () => {
    mkdirSync(join(unfinished, 'open', 'closed'), { recursive: true });
    for (const name of ['top', 'open/in', 'open/closed/deep'])
      writeFileSync(Buffer.from(`${unfinished}/${name}-caf\xe9`, 'latin1'), '');
    symlinkSync('/', join(unfinished, 'open/link'));
    chmodSync(join(unfinished, 'open/closed'), 0o555);
    chmodSync(join(unfinished, 'open'), 0o500);
  };
  make();
  await removeUnfinished(unfinished);
  assert.deepEqual(readdirSync(root), []);
  make();
  await emptyDirectory(unfinished);
  assert.deepEqual(readdirSync(unfinished), []);
});

test('what cannot be deleted is left, and no error hides the one before', async (t) => {
  const root = temporaryDirectory(t);
  writeFileSync(join(root, 'file'), '');
  await removeUnfinished(join(root, 'file', 'under-it'));
  await removeUnfinished(join(root, 'absent'));
  await emptyDirectory(join(root, 'absent'));
  assert.ok(existsSync(join(root, 'file')));
});

/** Goes on as a user whom modes stop, who has the directory. */
function asNobody(t: { after(end: () => void): void }, directory: string): void {
  if (process.geteuid?.() !== 0) return;
  chownSync(directory, NOBODY, NOBODY);
  process.seteuid!(NOBODY);
  t.after(() => process.seteuid!(0));
}

import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  emptyDirectory,
  makeOpenDirectory,
  OpenDirectory,
  removeAt,
} from '../../../src/files/open-directory.js';
import { systemCode } from '../../../src/files/storage-error.js';
import { PullError } from '../../../src/format/error.js';
import { temporaryDirectory } from '../../support/temporary.js';

/** Any user but root. */
const NOBODY = 65_534;
const isRoot = process.geteuid?.() === 0;
const skip = !existsSync('/proc/self/fd') && 'needs /proc';

function closing(t: TestContext, held: OpenDirectory): OpenDirectory {
  t.after(() => held.close());
  return held;
}

test('where the system has no owners (Windows) no directory is refused for its mode', (t) => {
  const directory = temporaryDirectory(t);
  chmodSync(directory, 0o777);
  const { geteuid } = process;
  t.after(() => Object.assign(process, { geteuid }));
  Object.assign(process, { geteuid: undefined });
  const held = closing(t, OpenDirectory.hold(directory, false));
  assert.deepEqual([held.isPrivate, held.isGuarded], [true, true]);
  closing(t, held.make('below', 0o777));
});

test('a directory that is held stays the same one when it is renamed', { skip }, (t) => {
  const directory = temporaryDirectory(t);
  // Else its path would do.
  chmodSync(directory, 0o777);
  for (const name of ['a', 'outside']) mkdirSync(join(directory, name));
  const held = closing(t, OpenDirectory.hold(join(directory, 'a')));
  renameSync(join(directory, 'a'), join(directory, 'moved'));
  symlinkSync('outside', join(directory, 'a'));
  closing(t, held.make('b', 0o700)).make(Buffer.from('caf\xe9', 'latin1'), 0o700).close();
  writeFileSync(held.at('file'), '');
  assert.deepEqual(readdirSync(join(directory, 'outside')), []);
  assert.deepEqual(readdirSync(join(directory, 'moved')).sort(), ['b', 'file']);
  assert.deepEqual(held.names.map(String).sort(), ['b', 'file']);
});

for (const canHold of [true, false]) {
  test(`no link is opened as a directory ${canHold ? '' : 'without /proc '}in one that is held`, {
    skip: canHold && skip,
  }, (t) => {
    const directory = temporaryDirectory(t);
    mkdirSync(join(directory, 'outside'));
    symlinkSync('outside', join(directory, 'link'));
    writeFileSync(join(directory, 'file'), '');
    const held = closing(t, OpenDirectory.hold(directory, canHold));
    for (const [name, code] of [
      ['link', 'ENOTDIR'],
      ['file', 'ENOTDIR'],
      ['absent', 'ENOENT'],
    ] as const)
      assert.throws(
        () => held.open(name),
        (error) => systemCode(error) === code,
      );
    held.open('outside').close();
    held.make('new', 0o700).close();
    assert.ok(existsSync(join(directory, 'new')));
  });
}

test('without /proc a directory is refused if others can change it or its path', {
  skip: process.geteuid === undefined && 'no modes here',
}, (t) => {
  const directory = temporaryDirectory(t);
  const [open, below] = [join(directory, 'open'), join(directory, 'open/below')];
  mkdirSync(below, { recursive: true });
  const refused = (path: string) =>
    assert.throws(
      () => OpenDirectory.hold(path, false),
      (error) =>
        error instanceof PullError && error.code === 'option-malformed' && /Linux/.test(error.hint ?? ''),
    );
  for (const mode of [0o777, 0o770]) {
    chmodSync(open, mode);
    for (const path of [open, below]) refused(path);
    assert.throws(() => OpenDirectory.hold(directory, false).open('open'), /other users/);
  }
  // Nobody renames there what belongs to others.
  chmodSync(open, 0o1777);
  for (const path of [open, below]) OpenDirectory.hold(path, false);
  if (!isRoot) return;
  chmodSync(open, 0o755);
  chownSync(open, NOBODY, NOBODY);
  for (const path of [open, below]) refused(path);
});

test('mode and owner of a directory tell what others can do', {
  skip: process.geteuid === undefined && 'no modes here',
}, (t) => {
  const directory = temporaryDirectory(t);
  const seen = [0o755, 0o1777, 0o775, 0o757].map((mode) => {
    chmodSync(directory, mode);
    const held = closing(t, OpenDirectory.hold(directory));
    return [held.isGuarded, held.isPrivate];
  });
  assert.deepEqual(seen, [
    [true, true],
    [true, false],
    [false, false],
    [false, false],
  ]);
});

test('a directory is made with those around it', (t) => {
  const directory = temporaryDirectory(t);
  closing(t, makeOpenDirectory(join(directory, 'a/b/c')));
  closing(t, makeOpenDirectory(join(directory, 'a/b/c')));
  assert.ok(existsSync(join(directory, 'a/b/c')));
  writeFileSync(join(directory, 'file'), '');
  assert.throws(() => makeOpenDirectory(join(directory, 'file/x')), /ENOTDIR/);
});

for (const canHold of [true, false]) {
  test(`a tree is removed and no link followed${canHold ? '' : ', without /proc'}`, {
    skip: canHold && !existsSync('/proc/self/fd') && 'needs /proc',
  }, async (t) => {
    const outside = temporaryDirectory(t);
    writeFileSync(join(outside, 'kept'), '');
    const directory = temporaryDirectory(t);
    mkdirSync(join(directory, 'a/b'), { recursive: true });
    for (const path of ['link', 'a/link', 'a/b/link']) symlinkSync(outside, join(directory, path));
    for (const path of ['file', 'a/b/caf\xe9'])
      writeFileSync(Buffer.from(join(directory, path), 'latin1'), '');
    chmodSync(join(directory, 'a/b'), 0o500);
    chmodSync(join(directory, 'a'), 0o500);
    const held = OpenDirectory.hold(directory, canHold);
    t.after(() => held.close());
    await removeAt(held, 'absent');
    await removeAt(held, 'link');
    await removeAt(held, Buffer.from('a'));
    assert.deepEqual(readdirSync(directory), ['file']);
    await emptyDirectory(held);
    assert.deepEqual([readdirSync(directory), readdirSync(outside)], [[], ['kept']]);
  });
}

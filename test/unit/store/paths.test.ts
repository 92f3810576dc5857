import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { type TestContext, test } from 'node:test';
import { imageRecordPath, isPackId, newPackId, openStore, storePaths } from '../../../src/store/paths.js';
import { syncedBy } from './support.js';

function freshDirectory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'zpull-paths-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test('opening creates the directories, for this user alone, and may be repeated', (t) => {
  const root = join(freshDirectory(t), 'a', 'store');
  const paths = openStore(root);
  assert.deepEqual(openStore(root), paths);
  for (const path of [paths.packs, paths.layers, paths.images, paths.blobs])
    assert.ok(statSync(path).isDirectory());
  if (process.platform !== 'win32') assert.equal(statSync(root).mode & 0o777, 0o700);
});

test('opening syncs the directories that it creates, and no others', {
  skip: process.platform === 'win32' && 'no directory is synced',
}, (t) => {
  const parent = freshDirectory(t);
  const root = join(parent, 'a', 'store');
  const first = syncedBy(t, () => openStore(root));
  const expected = [parent, join(parent, 'a'), root, join(root, 'v1'), join(root, 'v1', 'blobs')];
  assert.deepEqual(first.sort(), expected);
  assert.deepEqual(
    syncedBy(t, () => openStore(root)),
    [],
  );
  rmSync(storePaths(root).layers, { recursive: true });
  assert.deepEqual(
    syncedBy(t, () => openStore(root)),
    [join(root, 'v1')],
  );
});

test('a store with a relative path syncs the same names', {
  skip: process.platform === 'win32' && 'no directory is synced',
}, (t) => {
  const parent = freshDirectory(t);
  const root = join(parent, 'store');
  const synced = syncedBy(t, () => openStore(relative(process.cwd(), root)));
  assert.deepEqual(synced.sort(), [parent, root, join(root, 'v1'), join(root, 'v1', 'blobs')]);
});

for (const [age, version] of [
  ['an older', 'v0'],
  ['a newer', 'v2'],
] as const) {
  test(`a store of ${age} version is refused with a hint, and left alone`, (t) => {
    const root = freshDirectory(t);
    mkdirSync(join(root, version));
    assert.throws(() => openStore(root), {
      code: 'store-broken',
      message: new RegExp(`has the format ${version}, not v1`),
      hint: /the version of zpull that wrote it.*--store/,
    });
    assert.equal(existsSync(join(root, 'v1')), false);
    mkdirSync(join(root, 'v1'));
    openStore(root);
    assert.ok(existsSync(join(root, version)));
  });
}

test('a root that cannot be a directory is a broken store', (t) => {
  const file = join(freshDirectory(t), 'file');
  writeFileSync(file, '');
  assert.throws(() => openStore(file), { code: 'store-broken' });
  assert.throws(() => openStore(join(file, 'below')), { code: 'store-broken' });
});

test('pack names are 32 hex digits', () => {
  const id = newPackId();
  assert.ok(isPackId(id));
  assert.notEqual(newPackId(), id);
  for (const text of [
    '',
    `${id}0`,
    id.slice(1),
    id.toUpperCase().replace(/[0-9]/g, 'A'),
    `../${id.slice(3)}`,
    1,
  ]) {
    assert.equal(isPackId(text), false, String(text));
  }
});

test('an image record is named by reference and platform together', () => {
  const paths = storePaths('/store');
  const one = imageRecordPath(paths, 'host/a:1', 'linux/amd64');
  assert.match(one, /v1.images.[0-9a-f]{64}\.json$/);
  assert.notEqual(one, imageRecordPath(paths, 'host/a:1', 'linux/arm64'));
  assert.notEqual(one, imageRecordPath(paths, 'host/a:2', 'linux/amd64'));
});

import assert from 'node:assert/strict';
import { statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeDirectory } from '../../../src/files/guarded-directory.js';
import { makeReadOnly, skipUnlessMount, smallDisk } from '../../support/small-disk.js';
import { temporaryDirectory } from '../../support/temporary.js';

test('a directory is created with its parents, or exists', (t) => {
  const root = temporaryDirectory(t);
  const path = join(root, 'a', 'b');
  assert.equal(makeDirectory(path, 0o700), join(root, 'a'));
  assert.equal(statSync(path).mode & 0o777, 0o700);
  assert.equal(makeDirectory(path), undefined);
  symlinkSync('nowhere', join(root, 'dangling'));
  assert.throws(() => makeDirectory(join(root, 'dangling', 'x')), { code: 'ENOENT' });
});

test('a read-only file system gives EROFS', { skip: skipUnlessMount() }, (t) => {
  const disk = smallDisk(t, 2 ** 20);
  makeReadOnly(disk);
  assert.equal(makeDirectory(disk), undefined);
  for (const path of ['a', 'a/b/c']) assert.throws(() => makeDirectory(join(disk, path)), { code: 'EROFS' });
});

import assert from 'node:assert/strict';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { deleteBlob, getBlob, putBlob } from '../../../src/store/blob-cache.js';
import { blobPath } from '../../../src/store/paths.js';
import { digestOf, freshStore } from './support.js';

test('a blob is stored, stored again, and deleted', async (t) => {
  const paths = freshStore(t);
  const digest = digestOf('bytes');
  assert.equal(getBlob(paths, digest), undefined);
  await Promise.all([
    putBlob(paths, digest, Buffer.from('bytes')),
    putBlob(paths, digest, Buffer.from('bytes')),
  ]);
  assert.equal(getBlob(paths, digest)?.toString(), 'bytes');
  assert.equal(readdirSync(paths.blobs).length, 1);
  await deleteBlob(paths, digest);
  await deleteBlob(paths, digest);
  assert.equal(getBlob(paths, digest), undefined);
});

test('a damaged blob is deleted and counts as absent', async (t) => {
  const paths = freshStore(t);
  const digest = digestOf('bytes');
  for (const damaged of ['byteS', '', 'bytes and more']) {
    writeFileSync(blobPath(paths, digest), damaged);
    assert.equal(getBlob(paths, digest), undefined);
    assert.equal(existsSync(blobPath(paths, digest)), false);
  }
  await putBlob(paths, digest, Buffer.from('bytes'));
  assert.equal(getBlob(paths, digest)?.toString(), 'bytes');
});

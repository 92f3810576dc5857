import assert from 'node:assert/strict';
import { statfsSync } from 'node:fs';
import { test } from 'node:test';
import { requireSpace } from '../../../src/store/disk-space.js';
import { freshStore } from './support.js';

test('a disk with room for the bytes is accepted', async (t) => {
  await requireSpace(freshStore(t).root, 1);
});

test('a disk without room is refused with the bytes that are missing', async (t) => {
  const { root } = freshStore(t);
  const neededBytes = 2 ** 60;
  await assert.rejects(requireSpace(root, neededBytes), (error: { code?: string; message: string }) => {
    const [, free, missing] = /has (\d+) free: (\d+) bytes are missing$/.exec(error.message) ?? [];
    const { bavail, bsize } = statfsSync(root);
    assert.equal(error.code, 'store-full');
    assert.ok(Math.abs(Number(free) - bavail * bsize) < 2 ** 36);
    assert.equal(Number(missing), neededBytes - Number(free));
    return true;
  });
});

test('a directory that is not there has no free space to ask for', async () => {
  await assert.rejects(requireSpace('/nowhere/at/all', 1), { code: 'store-broken' });
});

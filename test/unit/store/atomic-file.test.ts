import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { removeFile, writeAtomically } from '../../../src/store/atomic-file.js';
import { freshStore } from './support.js';

test('a file appears whole, replaces what was there, and leaves no other file', async (t) => {
  const { layers } = freshStore(t);
  const path = join(layers, 'name');
  for (const [text, durable] of [
    ['one', false],
    ['another', true],
  ] as const) {
    await writeAtomically(path, Buffer.from(text), durable);
    assert.equal(readFileSync(path, 'utf8'), text);
    assert.deepEqual(readdirSync(layers), ['name']);
  }
});

test('a write that fails leaves the old file, and no other', async (t) => {
  const { layers, root } = freshStore(t);
  const path = join(layers, 'name');
  await writeAtomically(path, Buffer.from('old'), false);
  const file = await open(root);
  const handle = Object.getPrototypeOf(file) as { sync: () => Promise<void>; writeFile: () => Promise<void> };
  await file.close();
  const full = () => Promise.reject(Object.assign(new Error('full'), { code: 'ENOSPC' }));
  for (const method of ['sync', 'writeFile'] as const) {
    const { mock } = t.mock.method(handle, method, full);
    await assert.rejects(writeAtomically(path, Buffer.from('new'), true), {
      code: 'store-full',
      message: `could not write 3 bytes to ${path}: no space is left on the device (ENOSPC)`,
    });
    mock.restore();
    assert.equal(readFileSync(path, 'utf8'), 'old');
    assert.deepEqual(readdirSync(layers), ['name']);
  }
});

test('a rename that fails leaves no half file', async (t) => {
  const { layers } = freshStore(t);
  const path = join(layers, 'name');
  mkdirSync(path);
  await assert.rejects(writeAtomically(path, Buffer.from('x'), false), (error: { code?: string }) =>
    ['store-broken', 'store-denied'].includes(error.code ?? ''),
  );
  assert.deepEqual(readdirSync(layers), ['name']);
});

test('removing what is not there is no error', async (t) => {
  await removeFile(join(freshStore(t).layers, 'name'));
});

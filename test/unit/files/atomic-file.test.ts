import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  isSpecialFile,
  refuseSpecialFile,
  removeFile,
  writeAtomically,
} from '../../../src/files/atomic-file.js';
import { skipUnless } from '../../support/programs.js';
import { temporaryDirectory } from '../../support/temporary.js';
import { freshStore } from '../store/support.js';

test('a file appears complete, replaces the old one, and leaves no other file', async (t) => {
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

test('a failed rename leaves no partial file', async (t) => {
  const { layers } = freshStore(t);
  const path = join(layers, 'name');
  mkdirSync(path);
  await assert.rejects(writeAtomically(path, Buffer.from('x'), false), (error: { code?: string }) =>
    ['store-broken', 'store-denied'].includes(error.code ?? ''),
  );
  assert.deepEqual(readdirSync(layers), ['name']);
});

test('removing an absent file is no error', async (t) => {
  await removeFile(join(freshStore(t).layers, 'name'));
});

test('a pipe is not a file that may be replaced', { skip: skipUnless('mkfifo') }, (t) => {
  const directory = temporaryDirectory(t);
  const [pipe, file] = ['pipe', 'file'].map((name) => join(directory, name)) as [string, string];
  execFileSync('mkfifo', [pipe]);
  writeFileSync(file, '');
  assert.deepEqual([pipe, file, directory, join(directory, 'none')].map(isSpecialFile), [
    true,
    false,
    false,
    false,
  ]);
  assert.throws(() => refuseSpecialFile(pipe), { code: 'option-malformed' });
  refuseSpecialFile(file);
});

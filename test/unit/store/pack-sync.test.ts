import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { markBad } from '../../../src/store/bad-runs.js';
import { removePack, sealPack, syncPacks } from '../../../src/store/pack-sync.js';
import { freshStore, writePack } from './support.js';

/** From now on each sync of a file does what `sync` does. */
async function replaceSync(t: TestContext, path: string, sync: () => Promise<void>) {
  const file = await open(path);
  const handle = Object.getPrototypeOf(file) as { sync: () => Promise<void> };
  await file.close();
  return t.mock.method(handle, 'sync', sync).mock;
}

test('a sealed pack has its index under the final name', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('x')]);
  await sealPack(paths, id);
  assert.deepEqual(readdirSync(paths.packs).sort(), [`${id}.idx`, `${id}.pack`]);
});

test('unsealed packs are synced, sealed ones are not asked again', async (t) => {
  const paths = freshStore(t);
  const sealed = writePack(paths, [Buffer.from('x')]).id;
  const unsealed = writePack(paths, [Buffer.from('y')]).id;
  await sealPack(paths, sealed);
  const mock = await replaceSync(t, paths.root, () => Promise.resolve());
  await syncPacks(paths, [sealed]);
  assert.equal(mock.callCount(), 0);
  await syncPacks(paths, [sealed, unsealed]);
  assert.equal(mock.callCount(), process.platform === 'win32' ? 1 : 2);
});

test('a sync that failed is not repeated: the pack is lost', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('x')]);
  const mock = await replaceSync(t, join(paths.packs, `${id}.pack`), () =>
    Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' })),
  );
  await assert.rejects(syncPacks(paths, [id]), { code: 'store-broken' });
  mock.mockImplementation(() => Promise.resolve());
  await assert.rejects(syncPacks(paths, [id]), {
    code: 'store-broken',
    message: /was not written to the disk/,
  });
  await assert.rejects(sealPack(paths, id), { code: 'store-broken' });
  assert.equal(mock.callCount(), 1);
});

test('a removed pack leaves nothing behind, and may be removed again', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('x')]);
  markBad(paths, id, [{ offset: 0, lengthBytes: 1 }]);
  await removePack(paths, id);
  await removePack(paths, id);
  assert.deepEqual(readdirSync(paths.packs), []);
});

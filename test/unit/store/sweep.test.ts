import assert from 'node:assert/strict';
import { readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Lease } from '../../../src/store/leases.js';
import { markBad } from '../../../src/store/pack-files.js';
import { StoreInUse, Sweep } from '../../../src/store/sweep.js';
import { freshStore, writePack } from './support.js';

test('a sweep checks for leases before each file, and stops midway', async (t) => {
  const paths = freshStore(t);
  const lease = new Lease(paths, 'prune');
  t.after(() => lease.close());
  for (const name of ['a', 'b', 'c', 'd']) writeFileSync(join(paths.blobs, name), name);
  const sweep = new Sweep(paths, lease, Number.POSITIVE_INFINITY);
  // Somebody comes while the first file is being looked at.
  let other: Lease | undefined;
  t.after(() => other?.close());
  const others = t.mock.method(lease, 'otherKinds');
  const requireUnused = sweep.requireUnused.bind(sweep);
  t.mock.method(sweep, 'requireUnused', () => {
    if (others.mock.callCount() === 1) other = new Lease(paths, 'pull');
    requireUnused();
  });
  await assert.rejects(
    sweep.files(paths.blobs, () => true),
    (error: StoreInUse) => error.by === 'pull',
  );
  assert.deepEqual(readdirSync(paths.blobs).sort(), ['b', 'c', 'd']);
  const pack = writePack(paths, [Buffer.from('x')]).id;
  await assert.rejects(sweep.pack(sweep.packs().find(({ id }) => id === pack)!), StoreInUse);
});

test('a sweep checks for leases before each file of a pack, and keeps the bytes for a new process', async (t) => {
  const paths = freshStore(t);
  const lease = new Lease(paths, 'prune');
  t.after(() => lease.close());
  const { id } = writePack(paths, [Buffer.from('x')]);
  markBad(paths, id, [{ offset: 0, lengthBytes: 1 }]);
  const sweep = new Sweep(paths, lease, Number.POSITIVE_INFINITY);
  const [pack] = sweep.packs();
  let other: Lease | undefined;
  t.after(() => other?.close());
  const requireUnused = sweep.requireUnused.bind(sweep);
  const { mock } = t.mock.method(sweep, 'requireUnused', () => {
    if (mock.callCount() === 2) other = new Lease(paths, 'pull');
    requireUnused();
  });
  await assert.rejects(sweep.pack(pack!), (error: StoreInUse) => error.by === 'pull');
  assert.deepEqual(readdirSync(paths.packs).sort(), [`${id}.bad`, `${id}.pack`]);
  assert.equal(sweep.freedBytes, 0);
});

test('newer files are kept, and deleted ones counted', async (t) => {
  const paths = freshStore(t);
  const lease = new Lease(paths, 'prune');
  t.after(() => lease.close());
  const path = join(paths.blobs, 'a');
  writeFileSync(path, Buffer.alloc(10_000, 1));
  const { mtimeMs, blocks } = statSync(path);
  const earlier = new Sweep(paths, lease, mtimeMs - 1);
  assert.deepEqual([await earlier.files(paths.blobs, () => true), earlier.freedBytes], [0, 0]);
  const sweep = new Sweep(paths, lease, mtimeMs);
  assert.deepEqual([await sweep.files(paths.blobs, () => true), sweep.freedBytes], [1, blocks * 512]);
  assert.equal(await sweep.files(join(paths.root, 'none'), () => true), 0);
});

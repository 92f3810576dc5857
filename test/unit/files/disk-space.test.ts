import assert from 'node:assert/strict';
import fs, { type StatsFs, statfsSync } from 'node:fs';
import promises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { type TestContext, test } from 'node:test';
import { requireSpace, SpaceGuard } from '../../../src/files/disk-space.js';
import { freshStore } from '../store/support.js';

test('a disk with space for the bytes is accepted', async (t) => {
  await requireSpace(freshStore(t).root, 1);
});

test('a disk without space is refused with the number of missing bytes', async (t) => {
  const { root } = freshStore(t);
  const neededBytes = 2 ** 60;
  await assert.rejects(requireSpace(root, neededBytes), (error: { code?: string; message: string }) => {
    const [, free, unit = ''] =
      /needs 1152\.9 PB and has ([\d.]+) ([kMGTP]B) free: 115\d\.\d PB are missing$/.exec(error.message) ??
      [];
    const freeBytes = Number(free) * 1000 ** (['kB', 'MB', 'GB', 'TB', 'PB'].indexOf(unit) + 1);
    const { bfree, bavail, bsize } = statfsSync(root);
    assert.equal(error.code, 'store-full');
    const blocks = process.geteuid?.() === 0 ? bfree : bavail;
    assert.ok(Math.abs(freeBytes - blocks * bsize) < 2 ** 36, error.message);
    return true;
  });
});

test('a file system that gives no answer, has no size or compresses is accepted', async (t) => {
  await requireSpace('/nowhere/at/all', 2 ** 60);
  await whereFreeIs(t, {}, () => assert.rejects(requireSpace('/x', 50_000), { code: 'store-full' }));
  const [btrfs, zfs, bcachefs] = [0x9123683e, 0x2fc12fc1, 0xca451a4e];
  for (const other of [{ blocks: 0 }, { type: btrfs }, { type: zfs }, { type: bcachefs }])
    await whereFreeIs(t, other, () => requireSpace('/x', 50_000));
});

test('blocks reserved for root are free for root alone', async (t) => {
  const roomFor = (uid: number) => {
    t.mock.method(process as { geteuid(): number }, 'geteuid', () => uid);
    return whereFreeIs(t, { bfree: 20 }, () => requireSpace('/x', 15_000));
  };
  await roomFor(0);
  await assert.rejects(roomFor(1000), { code: 'store-full', message: /has 10\.0 kB free: 5\.0 kB are/ });
});

test('the message mentions the reserve for other programs', async (t) => {
  const message = /has 8\.0 kB free, without a reserve for other programs: 1\.0 kB are missing$/;
  await whereFreeIs(t, {}, () => assert.rejects(requireSpace('/x', 9000, true), { message }));
});

/** Does something while every file system answers that it has 10 blocks of 1000 bytes, but for what `stated` says. */
async function whereFreeIs(t: TestContext, stated: Partial<StatsFs>, action: () => Promise<void>) {
  const ext4 = { type: 0xef53, bsize: 1000, blocks: 100, bfree: 10, bavail: 10, files: 100, ffree: 10 };
  const mock = t.mock.method(promises, 'statfs', () => Promise.resolve({ ...ext4, ...stated }));
  syncBuiltinESMExports();
  try {
    await action();
  } finally {
    mock.mock.restore();
    syncBuiltinESMExports();
  }
}

const MIB = 2 ** 20;

/** A disk of so many MiB that says how often it was asked; `free` changes what is free of it. */
function disk(t: TestContext, totalMib: number, freeMib: number) {
  const state = { asked: 0, freeMib };
  const mock = t.mock.method(fs, 'statfsSync', (): StatsFs => {
    state.asked += 1;
    const free = state.freeMib;
    return { type: 0xef53, bsize: MIB, blocks: totalMib, bfree: free, bavail: free, files: 1, ffree: 1 };
  });
  syncBuiltinESMExports();
  t.after(() => {
    mock.mock.restore();
    syncBuiltinESMExports();
  });
  return state;
}

const FULL = {
  code: 'store-full',
  message: /B free, of which [\d.]+ [kM]?B are a reserve for other programs/,
};

test('a fiftieth of a disk stays free, and of a large one 256 MiB', (t) => {
  const state = disk(t, 1000, 21);
  const room = () => new SpaceGuard('/x');
  room().use(MIB);
  assert.throws(() => room().use(MIB + 1), FULL);
  state.freeMib = 20;
  assert.throws(() => room().use(1), FULL);
  const large = disk(t, 1e6, 257);
  room().use(MIB);
  large.freeMib = 256;
  assert.throws(() => room().use(1), FULL);
});

test('the free space is checked every 16 MiB, and more often when little is left', (t) => {
  const state = disk(t, 1e6, 1e5);
  const room = new SpaceGuard('/x');
  for (let written = 0; written < 160; written++) room.use(MIB);
  assert.ok(state.asked <= 11, `${state.asked}`);
  const nearlyFull = disk(t, 1e6, 256 + 17);
  const other = new SpaceGuard('/x');
  other.use(MIB);
  for (let written = 0; written < 17; written++) {
    nearlyFull.freeMib -= 1;
    if (nearlyFull.freeMib >= 257) other.use(MIB);
    else assert.throws(() => other.use(MIB), FULL);
  }
  assert.ok(nearlyFull.asked > 10, `${nearlyFull.asked}`);
});

test('a file system without a size is accepted', (t) => {
  disk(t, 0, 0);
  new SpaceGuard('/x').use(2 ** 40);
  new SpaceGuard('/nowhere/at/all').use(1);
});

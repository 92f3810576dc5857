import assert from 'node:assert/strict';
import fs, { type StatsFs } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { type TestContext, test } from 'node:test';
import { FreeRoom } from '../../../src/store/disk-space.js';

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

const FULL = { code: 'store-full', message: /bytes free, of which \d+ are a reserve for other programs/ };

test('a fiftieth of a disk stays free, and of a large one 256 MiB', (t) => {
  const state = disk(t, 1000, 21);
  const room = () => new FreeRoom('/x');
  room().use(MIB);
  assert.throws(() => room().use(MIB + 1), FULL);
  state.freeMib = 20;
  assert.throws(() => room().use(1), FULL);
  const large = disk(t, 1e6, 257);
  room().use(MIB);
  large.freeMib = 256;
  assert.throws(() => room().use(1), FULL);
});

test('the disk is asked every 16 MiB, and more often when little is left', (t) => {
  const state = disk(t, 1e6, 1e5);
  const room = new FreeRoom('/x');
  for (let written = 0; written < 160; written++) room.use(MIB);
  assert.ok(state.asked <= 11, `${state.asked}`);
  const nearlyFull = disk(t, 1e6, 256 + 17);
  const other = new FreeRoom('/x');
  other.use(MIB);
  for (let written = 0; written < 17; written++) {
    nearlyFull.freeMib -= 1;
    if (nearlyFull.freeMib >= 257) other.use(MIB);
    else assert.throws(() => other.use(MIB), FULL);
  }
  assert.ok(nearlyFull.asked > 10, `${nearlyFull.asked}`);
});

test('a file system that states no size refuses nothing', (t) => {
  disk(t, 0, 0);
  new FreeRoom('/x').use(2 ** 40);
  new FreeRoom('/nowhere/at/all').use(1);
});

import assert from 'node:assert/strict';
import fs, {
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { digestHex } from '../../../src/format/digest.js';
import { LayerLocks } from '../../../src/store/layer-locks.js';
import { Lease } from '../../../src/store/leases.js';
import type { StorePaths } from '../../../src/store/paths.js';
import { digestOf, freshStore, skipTime } from './support.js';

const LAYER = digestOf('layer');
const OTHER = digestOf('other');

function holder(t: TestContext, paths: StorePaths): { lease: Lease; locks: LayerLocks } {
  const lease = new Lease(paths, 'pull');
  t.after(() => lease.close());
  return { lease, locks: new LayerLocks(paths, lease) };
}

function leaseFile(paths: StorePaths, { id }: Lease): string {
  return join(paths.leases, readdirSync(paths.leases).find((name) => name.startsWith(id))!);
}

/** Makes a file look as if it had last been written 20 s ago. */
function age(path: string): void {
  const timeMs = statSync(path).mtimeMs - 20_000;
  utimesSync(path, timeMs / 1000, timeMs / 1000);
}

test('a lock has one holder until it is released, independently of other layers', (t) => {
  const paths = freshStore(t);
  const { locks: one } = holder(t, paths);
  const { locks: two } = holder(t, paths);
  assert.deepEqual([one.tryLock(LAYER), two.tryLock(LAYER), two.tryLock(OTHER)], [true, false, true]);
  assert.deepEqual([two.isLocked(LAYER), one.isLocked(OTHER)], [true, true]);
  two.release(LAYER);
  assert.equal(two.isLocked(LAYER), true, 'it is not his to release');
  one.release(LAYER);
  assert.equal(two.isLocked(LAYER), false);
  assert.equal(two.tryLock(LAYER), true);
  two.releaseAll();
  assert.deepEqual(readdirSync(paths.locks), []);
});

test('the lock of a dead or absent lease is stale', (t) => {
  const paths = freshStore(t);
  const skip = skipTime(t);
  for (const die of [(lease: Lease) => lease.close(), (lease: Lease) => age(leaseFile(paths, lease))]) {
    const dead = holder(t, paths);
    const { locks } = holder(t, paths);
    assert.equal(dead.locks.tryLock(LAYER), true);
    assert.equal(locks.tryLock(LAYER), false);
    die(dead.lease);
    locks.isLocked(LAYER);
    skip(3000);
    assert.equal(locks.isLocked(LAYER), false);
    assert.equal(locks.tryLock(LAYER), true);
    dead.locks.releaseAll();
    assert.equal(readdirSync(paths.locks).length, 1, 'the dead one does not release what is another’s now');
    locks.releaseAll();
  }
});

test('an empty lock is valid for 15 s and two checks', (t) => {
  const skip = skipTime(t);
  const paths = freshStore(t);
  const { locks } = holder(t, paths);
  assert.equal(locks.tryLock(OTHER), true); // makes the directory
  const path = join(paths.locks, digestHex(LAYER));
  writeFileSync(path, '');
  assert.equal(locks.tryLock(LAYER), false);
  age(path);
  assert.equal(locks.tryLock(LAYER), false, 'the clock may have been set');
  skip(3000);
  assert.equal(locks.tryLock(LAYER), true);
});

test('a lock that another process acquires while a stale one is removed stays valid', (t) => {
  const paths = freshStore(t);
  const dead = holder(t, paths);
  const quick = holder(t, paths);
  const { lease, locks } = holder(t, paths);
  dead.locks.tryLock(LAYER);
  dead.lease.close();
  // Between the look that finds the holder dead and the rename, somebody else is faster.
  const { mock } = t.mock.method(lease, 'liveIds', (): Set<string> => {
    mock.restore();
    const living = lease.liveIds();
    assert.equal(quick.locks.tryLock(LAYER), true);
    return living;
  });
  assert.equal(locks.tryLock(LAYER), false);
  const path = join(paths.locks, digestHex(LAYER));
  assert.equal(readFileSync(path, 'utf8'), quick.lease.id);
  assert.deepEqual(readdirSync(paths.locks), [digestHex(LAYER)]);
  renameSync(path, `${path}.gone`);
  assert.equal(locks.tryLock(LAYER), true);
});

test('a lock that is created again does not replace the lock of a third process', (t) => {
  const paths = freshStore(t);
  const [dead, quick, third] = [holder(t, paths), holder(t, paths), holder(t, paths)];
  const { lease, locks } = holder(t, paths);
  dead.locks.tryLock(LAYER);
  dead.lease.close();
  let looks = 0;
  t.mock.method(lease, 'liveIds', (): Set<string> => {
    looks += 1;
    const living = new Set([lease, quick.lease, third.lease].map(({ id }) => id));
    // Between the look that finds the holder dead and the rename, and again before what was renamed is put back.
    if (looks === 1) assert.equal(quick.locks.tryLock(LAYER), true);
    if (looks === 2) assert.equal(third.locks.tryLock(LAYER), true);
    return living;
  });
  assert.equal(locks.tryLock(LAYER), false);
  assert.ok(looks >= 2);
  assert.equal(readFileSync(join(paths.locks, digestHex(LAYER)), 'utf8'), third.lease.id);
  assert.deepEqual(readdirSync(paths.locks), [digestHex(LAYER)]);
  assert.deepEqual([quick.locks.holds(LAYER), third.locks.holds(LAYER)], [false, true]);
  quick.locks.releaseAll();
  assert.deepEqual(readdirSync(paths.locks), [digestHex(LAYER)], 'it is not his to release any more');
});

test('a process that was suspended between creating and writing a lock may have lost it', (t) => {
  const paths = freshStore(t);
  const slow = holder(t, paths);
  const other = holder(t, paths);
  const real = fs.writeSync;
  const { mock } = t.mock.method(fs, 'writeSync', (...parameters: Parameters<typeof real>) => {
    mock.restore();
    syncBuiltinESMExports();
    // What a process does that takes it for dead.
    rmSync(join(paths.locks, digestHex(LAYER)));
    assert.equal(other.locks.tryLock(LAYER), true);
    return real(...parameters);
  });
  syncBuiltinESMExports();
  t.after(syncBuiltinESMExports);
  assert.equal(slow.locks.tryLock(LAYER), false);
  assert.equal(other.locks.holds(LAYER), true);
});

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs, {
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Lease, withLease } from '../../../src/store/leases.js';
import type { StorePaths } from '../../../src/store/paths.js';
import { freshStore, skipTime } from './support.js';

const SECOND = 1000;

function take(t: TestContext, paths: StorePaths, kind: ConstructorParameters<typeof Lease>[1]): Lease {
  const lease = new Lease(paths, kind);
  t.after(() => lease.close());
  return lease;
}

function fileOf(paths: StorePaths, lease: Lease): string {
  const name = readdirSync(paths.leases).find((each) => each.startsWith(lease.id));
  return join(paths.leases, name!);
}

/** Makes a lease look as if it had been silent for so long, by the clock of the file system. */
function silence(paths: StorePaths, lease: Lease, ms: number): void {
  const path = fileOf(paths, lease);
  const timeMs = statSync(path).mtimeMs - ms;
  utimesSync(path, timeMs / SECOND, timeMs / SECOND);
}

test('the kinds of other live leases are known, without this one', (t) => {
  const paths = freshStore(t);
  const own = take(t, paths, 'prune');
  assert.deepEqual(own.otherKinds(), []);
  const pull = take(t, paths, 'pull');
  assert.deepEqual(own.otherKinds(), ['pull']);
  assert.deepEqual(pull.otherKinds(), ['prune']);
  pull.close();
  assert.deepEqual(own.otherKinds(), []);
});

test('a lease that is stale for more than 15 s in two checks is dead; after 14 s it is live', (t) => {
  const skip = skipTime(t);
  const paths = freshStore(t);
  const own = take(t, paths, 'prune');
  const other = take(t, paths, 'export');
  silence(paths, other, 14 * SECOND);
  for (const ms of [0, 5 * SECOND]) {
    skip(ms);
    assert.deepEqual([own.otherKinds(), own.liveIds().has(other.id)], [['export'], true]);
  }
  for (const ms of [2 * SECOND, -3600 * SECOND]) {
    silence(paths, other, ms);
    assert.deepEqual([own.otherKinds(), own.liveIds().has(other.id)], [['export'], true], 'the first look');
    skip(1.5 * SECOND);
    assert.deepEqual(own.otherKinds(), ['export'], 'a beat may be late');
    skip(SECOND);
    assert.deepEqual([own.otherKinds(), own.liveIds().has(other.id)], [[], false], 'the second look');
  }
  assert.deepEqual([...own.liveIds()], [own.id]);
});

test('live leases stay live after the clock was set or the machine has slept', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const skip = skipTime(t);
  const paths = freshStore(t);
  const own = take(t, paths, 'prune');
  const other = take(t, paths, 'pull');
  for (const ms of [3600 * SECOND, -3600 * SECOND, 60 * SECOND]) {
    silence(paths, other, ms);
    assert.deepEqual(own.otherKinds(), ['pull'], 'seen before its heart beats again');
    own.removeDeadLeases();
    t.mock.timers.tick(SECOND);
    skip(5 * SECOND);
    assert.deepEqual(own.otherKinds(), ['pull']);
    // Another jump is not the second look at the first one.
    silence(paths, other, ms);
    assert.deepEqual(own.otherKinds(), ['pull']);
    t.mock.timers.tick(SECOND);
  }
});

test('awaitStale waits for the second check if a lease is stale', async (t) => {
  const paths = freshStore(t);
  const own = take(t, paths, 'prune');
  const other = take(t, paths, 'pull');
  await own.awaitStale();
  assert.deepEqual(own.otherKinds(), ['pull']);
  t.mock.method(fs, 'ftruncateSync', () => {}); // no heart beats
  syncBuiltinESMExports();
  silence(paths, other, 60 * SECOND);
  await own.awaitStale();
  t.mock.restoreAll();
  syncBuiltinESMExports();
  assert.deepEqual(own.otherKinds(), []);
});

test('the clock of the machine does not matter', (t) => {
  const paths = freshStore(t);
  const own = take(t, paths, 'prune');
  take(t, paths, 'pull');
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 3600 * SECOND });
  assert.deepEqual(own.otherKinds(), ['pull']);
});

test('a lease is renewed while the holder lives, also after its file was deleted', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const skip = skipTime(t);
  const paths = freshStore(t);
  const own = take(t, paths, 'prune');
  const other = take(t, paths, 'pull');
  silence(paths, other, 60 * SECOND);
  assert.deepEqual(own.otherKinds(), ['pull']);
  skip(3 * SECOND);
  assert.deepEqual(own.otherKinds(), []);
  t.mock.timers.tick(5 * SECOND);
  assert.deepEqual(own.otherKinds(), ['pull']);
  rmSync(fileOf(paths, other));
  t.mock.timers.tick(5 * SECOND);
  assert.deepEqual(own.otherKinds(), ['pull']);
  other.close();
  t.mock.timers.tick(5 * SECOND);
  assert.deepEqual(own.otherKinds(), []);
});

test('renewals go on when the directory of the leases is replaced', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const paths = freshStore(t);
  const own = take(t, paths, 'pull');
  const [aside, elsewhere] = [`${paths.leases}-aside`, `${paths.leases}-elsewhere`];
  renameSync(paths.leases, aside);
  mkdirSync(elsewhere);
  symlinkSync(elsewhere, paths.leases);
  t.mock.timers.tick(5 * SECOND);
  assert.deepEqual(readdirSync(elsewhere), []);
  rmSync(paths.leases);
  renameSync(aside, paths.leases);
  t.mock.timers.tick(5 * SECOND);
  assert.deepEqual(take(t, paths, 'prune').otherKinds(), ['pull']);
  own.close();
});

test('leases of dead processes are removed, and no others', (t) => {
  const skip = skipTime(t);
  const paths = freshStore(t);
  const own = take(t, paths, 'prune');
  const [dead, alive] = [take(t, paths, 'pull'), take(t, paths, 'pull')];
  writeFileSync(join(paths.leases, 'strange'), '');
  silence(paths, dead, 20 * SECOND);
  own.removeDeadLeases();
  assert.equal(readdirSync(paths.leases).length, 4, 'one look is not enough');
  skip(3 * SECOND);
  own.removeDeadLeases();
  const left = readdirSync(paths.leases).map((name) => name.slice(0, 32));
  assert.deepEqual(left.sort(), [own.id, alive.id, 'strange'].sort());
});

test('a lease is held while the work runs and released when it succeeds or fails', async (t) => {
  const paths = freshStore(t);
  const own = take(t, paths, 'prune');
  assert.deepEqual(await withLease(paths, 'verify', async () => own.otherKinds()), ['verify']);
  const failing = withLease(paths, 'verify', async () => Promise.reject(new Error('no')));
  await assert.rejects(failing, { message: 'no' });
  assert.deepEqual(own.otherKinds(), []);
});

test('a lease is acquired although another process removes the directory at that moment', (t) => {
  const paths = freshStore(t);
  const real = fs.mkdirSync;
  let made = 0;
  const mock = t.mock.method(fs, 'mkdirSync', (path: string, options: fs.MakeDirectoryOptions) => {
    real(path, options);
    if (!path.endsWith('/leases')) return;
    made += 1;
    if (made <= 2) fs.rmdirSync(path);
  });
  syncBuiltinESMExports();
  t.after(() => {
    mock.mock.restore();
    syncBuiltinESMExports();
  });
  const lease = take(t, paths, 'pull');
  assert.equal(made, 3);
  assert.deepEqual([...lease.liveIds()], [lease.id]);
});

test('a lease of a gone process in the same PID namespace is dead after 2 s without a renewal', {
  skip: process.platform !== 'linux' && 'no process namespaces here',
}, (t) => {
  const paths = freshStore(t);
  const own = take(t, paths, 'prune');
  const other = take(t, paths, 'pull');
  const path = fileOf(paths, other);
  const gone = spawnSync(process.execPath, ['--version']).pid;
  const rename = (pid: number, place: string) => {
    const to = join(paths.leases, `${other.id}.pull.${pid}.${place}`);
    renameSync(fileOf(paths, other), to);
  };
  const place = path.slice(path.lastIndexOf('.') + 1);
  silence(paths, other, 3 * SECOND);
  assert.deepEqual(own.otherKinds(), ['pull'], 'this process lives');
  rename(gone, place);
  assert.deepEqual(own.otherKinds(), []);
  rename(
    gone,
    place.replace(/^./, (digit) => (digit === '0' ? '1' : '0')),
  );
  assert.deepEqual(own.otherKinds(), ['pull'], 'it may be the number of another container');
  rename(gone, '');
  assert.deepEqual(own.otherKinds(), ['pull'], 'nor is anything known where there is no /proc');
  rename(gone, place);
  silence(paths, other, -2 * SECOND);
  assert.deepEqual(own.otherKinds(), ['pull'], 'it has just beaten');
});

const UNSHARED = ['--pid', '--fork', '--mount-proc', '--kill-child'];

/** For the `skip` of a test with a process namespace of its own: false when there can be one, else why not. */
function skipUnlessUnshared(): string | false {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'needs root on Linux, for a namespace';
  const { status } = spawnSync('unshare', [...UNSHARED, 'true']);
  return status !== 0 && 'cannot make a process namespace here (a container without CAP_SYS_ADMIN?)';
}

test('a lease of another container is live while it is renewed, and dead after 15 s without a renewal', {
  skip: skipUnlessUnshared(),
}, async (t) => {
  const skip = skipTime(t);
  const paths = freshStore(t);
  const own = take(t, paths, 'prune');
  const script = `
    const { Lease } = await import(${JSON.stringify(new URL('../../../src/store/leases.js', import.meta.url).href)});
    const lease = new Lease({ leases: process.argv[1] }, 'pull');
    console.log(lease.id);
    setInterval(() => {}, 1000);
  `;
  const args = [...UNSHARED, process.execPath, '--input-type=module', '-e', script, paths.leases];
  const child = spawn('unshare', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const gone = once(child, 'exit');
  const [id] = (await once(child.stdout, 'data')) as [Buffer];
  const other = { id: id.toString().trim() } as Lease;
  assert.match(fileOf(paths, other), /\.pull\.1\.[0-9a-f]{16}$/, 'the first process of its namespace');
  assert.deepEqual(own.otherKinds(), ['pull']);
  child.kill('SIGKILL');
  await gone;
  // There is a process 1 here, too; not so one of this number.
  const path = fileOf(paths, other);
  renameSync(path, path.replace('.pull.1.', `.pull.${spawnSync(process.execPath, ['--version']).pid}.`));
  silence(paths, other, 10 * SECOND);
  assert.deepEqual(own.otherKinds(), ['pull'], 'its number says nothing here');
  silence(paths, other, 6 * SECOND);
  assert.deepEqual(own.otherKinds(), ['pull']);
  skip(3 * SECOND);
  assert.deepEqual(own.otherKinds(), []);
});

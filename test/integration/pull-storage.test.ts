import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { RootfsFollower } from '../../src/api/export.js';
import { listStore, pruneStore, removeImage, verifyStore } from '../../src/api/store.js';
import { parseDigest } from '../../src/format/digest.js';
import { readImageRecord, writeImageRecord } from '../../src/store/image-record.js';
import { LayerLocks } from '../../src/store/layer-locks.js';
import { Lease } from '../../src/store/leases.js';
import { openStore, storePaths } from '../../src/store/paths.js';
import { outcomesOf, startPullingChild } from '../support/child.js';
import { setEnvironment } from '../support/environment.js';
import { emptyLayout, noise, tarOf, writeTars } from '../support/layout.js';
import { findInPacks, flipByte } from '../support/packs.js';
import { skipUnless } from '../support/programs.js';
import {
  assertProven,
  assertWhole,
  failureOf,
  holdsLayer,
  layerAsks,
  listedImages,
  pull,
} from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { fillDisk, makeReadOnly, skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { temporaryDirectory } from '../support/temporary.js';

const MIB = 2 ** 20;

/** An image of one layer of 6 MiB. */
async function sixMebibytes(t: TestContext): Promise<string> {
  const layout = emptyLayout(t);
  const files = Array.from({ length: 12 }, (_, i) => [`file${i}`, noise(i + 1, MIB / 2)] as const);
  await writeTars(t, layout, 'it', [tarOf(Object.fromEntries(files))]);
  return layout;
}

test('a store that cannot be created ends the pull before any request', async (t) => {
  const registry = await startSandbox(t);
  const file = join(temporaryDirectory(t), 'file');
  writeFileSync(file, '');
  const error = await failureOf(pull(`${registry.host}/x:chunked-v1`, { store: join(file, 'store') }));
  assert.deepEqual([error.code, error.exitCode], ['store-broken', 7]);
  assert.ok(error.message.includes(file));
  assert.equal(registry.requests.length, 0);
});

test('a store on a read-only file system can be read and is not written', {
  skip: skipUnlessMount(),
}, async (t) => {
  const registry = await startSandbox(t);
  const disk = smallDisk(t, 16 * MIB);
  const store = join(disk, 'store');
  const first = await pull(`${registry.host}/x:chunked-v1`, { store });
  makeReadOnly(disk);
  const held = await pull(`${registry.host}/x:chunked-v1`, { store, policy: 'missing' });
  assert.equal(held.result.digest, first.result.digest);
  assert.deepEqual((await verifyStore({ store })).damaged, []);
  assertProven(held.result);
  const error = await failureOf(pull(`${registry.host}/x:chunked-v2`, { store }));
  assert.deepEqual([error.code, error.exitCode], ['store-denied', 7]);
  assert.match(error.message, /read-only/);
});

test('a disk that is too small is reported before any content is requested', {
  skip: skipUnlessMount(),
}, async (t) => {
  const registry = await startSandbox(t, { layout: await sixMebibytes(t) });
  const error = await failureOf(pull(`${registry.host}/x:it`, { store: smallDisk(t, 4 * MIB) }));
  assert.deepEqual([error.code, error.exitCode], ['store-full', 7]);
  assert.match(error.message, /[\d.]+ [kMG]?B are missing/);
  assert.equal(layerAsks(registry).length, 1); // the metadata
});

test('a disk that fills up during the pull ends it; with space again the next pull resumes', {
  skip: skipUnlessMount(),
}, async (t) => {
  const layout = await sixMebibytes(t);
  const registry = await startSandbox(t, { layout, rateBytes: 3 * MIB });
  const disk = smallDisk(t, 16 * MIB);
  const store = join(disk, 'store');
  let filler: string | undefined;
  const error = await failureOf(
    pull(`${registry.host}/x:it`, {
      store,
      connections: 4,
      onEvent: (event) => {
        if (event.event === 'progress' && event.writtenBytes > 2 * MIB) filler ??= fillDisk(disk);
      },
    }),
  );
  assert.deepEqual([error.code, error.exitCode], ['store-full', 7], error.message);
  assert.ok(error.hint !== undefined);
  assert.deepEqual(listedImages(store), []);
  rmSync(filler!);
  const { result } = await pull(`${registry.host}/x:it`, { store });
  assertProven(result);
  assert.ok(result.resumedBytes > MIB, `${result.resumedBytes}`);
  assert.ok(holdsLayer(store, result.layers[0]!.diffId));
});

test('on a disk that fills up, files written early are deleted, and the pull continues', {
  skip: skipUnlessMount(),
}, async (t) => {
  const { host } = await startSandbox(t, { layout: await sixMebibytes(t), rateBytes: 6 * MIB });
  const disk = smallDisk(t, 16 * MIB);
  const store = join(disk, 'store');
  const rootfs = new RootfsFollower({ store, directory: join(disk, 'out') });
  let filler: string | undefined;
  let left: string[] = [];
  const makeRoom = async () => {
    await rootfs.makeRoom();
    left = readdirSync(disk);
    rmSync(filler!, { force: true });
  };
  const { result } = await pull(`${host}/x:it`, {
    store,
    connections: 4,
    follower: {
      begin: (diffIds) => rootfs.begin(diffIds),
      follow: (diffId, maxTarBytes) => rootfs.follow(diffId, maxTarBytes),
      makeRoom,
    },
    onEvent: (event) => {
      if (event.event === 'progress' && event.writtenBytes > 2 * MIB) filler ??= fillDisk(disk);
    },
  });
  assertProven(result);
  assert.deepEqual(left.sort(), ['filler', 'store']);
});

test('a store may lie on another file system than temporary files, which are not used', {
  skip: skipUnlessMount(),
}, async (t) => {
  const registry = await startSandbox(t);
  const store = join(smallDisk(t, 16 * MIB), 'store');
  setEnvironment(t, { TMPDIR: '/nowhere/at/all' });
  const { result } = await pull(`${registry.host}/x:chunked-v1`, { store });
  assertProven(result);
  assert.deepEqual((await verifyStore({ store })).damaged, []);
});

test('bytes that a pull could not sync are not cached for any other process', async (t) => {
  const { host } = await startSandbox(t);
  const store = temporaryDirectory(t);
  const image = `${host}/x:chunked-v1`;
  const file = await open(store);
  const handle = Object.getPrototypeOf(file) as { sync: () => Promise<void> };
  await file.close();
  const { mock } = t.mock.method(handle, 'sync');
  mock.mockImplementationOnce(() => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' })));
  const error = await failureOf(pull(image, { store }));
  assert.deepEqual([error.code, error.exitCode], ['store-broken', 7]);
  // Two layers may be made of the same pack: the one whose sync failed, and one that hears of it.
  assert.match(error.message, /\.pack (to the disk: the disk reports an error|was not written to the disk)/);
  mock.restore();
  const child = startPullingChild(t, { image, options: { store } });
  assert.equal(await child.gone, 0);
  const [outcome] = outcomesOf(child.lines);
  assert.ok(outcome !== undefined && 'layers' in outcome);
  assert.deepEqual([outcome.resumedBytes, outcome.reusedBytes], [0, 0]);
  assert.equal(assertWhole(store), outcome.layers.length);
});

test('a process at its limit of open files reports that, with a hint how to raise it', {
  skip: skipUnless('sh'),
}, async (t) => {
  const index = new URL('../../src/index.js', import.meta.url).href;
  const script = `
    import { openSync } from 'node:fs';
    import { listStore } from ${JSON.stringify(index)};
    try { for (;;) openSync('/dev/null'); } catch {}
    try { listStore({ store: ${JSON.stringify(temporaryDirectory(t))} }); }
    catch (error) { console.log(JSON.stringify({ ...error, message: error.message, exitCode: error.exitCode })); }
  `;
  const limited = `ulimit -n 256; exec "$0" --input-type=module -e "$1"`;
  const { stdout } = spawnSync('sh', ['-c', limited, process.execPath, script], { encoding: 'utf8' });
  const error = JSON.parse(stdout) as { code: string; exitCode: number; message: string; hint: string };
  assert.deepEqual([error.code, error.exitCode], ['store-broken', 7]);
  assert.match(error.message, /^could not read .*too many open files/);
  assert.match(error.hint, /ulimit -n/);
});

test('a pull at the limit of open files, in any thread, reports that', {
  skip: skipUnless('sh'),
}, async (t) => {
  const { host } = await startSandbox(t);
  const index = new URL('../../src/index.js', import.meta.url).href;
  const script = `
    import { closeSync, openSync } from 'node:fs';
    import { pullImage } from ${JSON.stringify(index)};
    for (const [when, left] of [['resolved', 0], ['planned', 0], ['planned', 6]]) {
      const open = [];
      const onEvent = ({ event }) => {
        if (event !== when) return;
        try { for (;;) open.push(openSync('/dev/null')); } catch {}
        for (let i = 0; i < left; i++) closeSync(open.pop());
      };
      const store = ${JSON.stringify(temporaryDirectory(t))} + '/' + when + left;
      // One support thread would fetch so little by itself.
      const end = await pullImage('${host}/x:chunked-v1', { store, onEvent, workers: 4 }).catch((error) => error);
      for (const fd of open) closeSync(fd);
      console.log(JSON.stringify([end.code, end.exitCode, end.message, end.hint]));
    }
  `;
  const limited = `ulimit -n 256; exec "$0" --input-type=module -e "$1"`;
  const { stdout } = await promisify(execFile)('sh', ['-c', limited, process.execPath, script]);
  const ends = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as [string, number, string, string]);
  assert.equal(ends.length, 3);
  for (const [code, exitCode, message, hint] of ends) {
    assert.deepEqual([code, exitCode], ['store-broken', 7], message);
    assert.match(message, /^could not .*: this process has too many open files \(EMFILE\)$/);
    assert.match(hint, /ulimit -n/);
  }
  assert.match(ends[0]![2], /v1\/(layers|locks)/, 'the main thread');
  assert.match(ends[1]![2], /start a thread/);
});

test('a file that cannot be deleted, or a directory that cannot be listed, is an error of the store', {
  skip: skipUnlessMount(),
}, async (t) => {
  const registry = await startSandbox(t);
  const disk = smallDisk(t, 16 * MIB);
  const store = join(disk, 'store');
  const image = `${registry.host}/x:chunked-v1`;
  await pull(image, { store });
  makeReadOnly(disk);
  for (const action of [() => removeImage({ store, image }), () => pruneStore({ store })]) {
    const error = await failureOf(action());
    assert.deepEqual([error.code, error.exitCode], ['store-denied', 7]);
    assert.ok(error.message.includes(store), error.message);
  }
  assert.equal(listStore({ store }).images.length, 1);
});

test('a lock that cannot be created for lack of space leaves no file', { skip: skipUnlessMount() }, (t) => {
  const disk = smallDisk(t, MIB);
  const paths = openStore(join(disk, 'store'));
  const lease = new Lease(paths, 'pull');
  t.after(() => lease.close());
  const locks = new LayerLocks(paths, lease);
  fillDisk(disk);
  const diffId = parseDigest(`sha256:${'0'.repeat(64)}`, 'DiffID');
  assert.throws(() => locks.tryLock(diffId), { code: 'store-full' });
  assert.deepEqual(readdirSync(paths.locks), []);
  assert.deepEqual(lease.otherKinds(), [], 'a lease needs no room');
});

test('damage of a store that cannot be written is found, and not recorded', {
  skip: skipUnlessMount(),
}, async (t) => {
  const registry = await startSandbox(t, { layout: await sixMebibytes(t) });
  const disk = smallDisk(t, 16 * MIB);
  const store = join(disk, 'store');
  await pull(`${registry.host}/x:it`, { store });
  const { path, at } = findInPacks(store, noise(3, MIB / 2));
  flipByte(path, at);
  makeReadOnly(disk);
  const { damaged } = await verifyStore({ store });
  assert.deepEqual(
    damaged.map((each) => each.path),
    ['file2'],
  );
});

test('a time of last use that cannot be written is not an error', { skip: skipUnlessMount() }, async (t) => {
  const registry = await startSandbox(t);
  const disk = smallDisk(t, 16 * MIB);
  const store = join(disk, 'store');
  const image = `${registry.host}/x:chunked-v1`;
  const { result } = await pull(image, { store });
  const paths = storePaths(store);
  const record = readImageRecord(paths, image, result.platform)!;
  await writeImageRecord(paths, { ...record, lastUsedMs: 0 });
  makeReadOnly(disk);
  assert.equal((await pull(image, { store, policy: 'missing' })).result.digest, result.digest);
  assert.equal(readImageRecord(paths, image, result.platform)!.lastUsedMs, 0);
});

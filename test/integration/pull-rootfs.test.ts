import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Worker } from 'node:worker_threads';
import { exportRootfs, exportTar, RootfsFollower, TagFollower } from '../../src/api/export.js';
import { type PullEvent, type PullOptions, pullImage } from '../../src/api/pull.js';
import type { BegunRootfs } from '../../src/export/rootfs-follower.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { ExtentList } from '../../src/store/extents.js';
import { newPackId, openStore } from '../../src/store/paths.js';
import type { SampleFormat } from '../support/layers/sample-image.js';
import { writeSampleImage } from '../support/layers/sample-image.js';
import { emptyLayout, noise } from '../support/layout.js';
import { listDirectory } from '../support/listing.js';
import { findInPacks, flipByte } from '../support/packs.js';
import { failureOf, listedImages } from '../support/pull.js';
import { type Random, seededRandom } from '../support/random.js';
import { startSandbox } from '../support/sandbox.js';
import { skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { type Entry, tarOf } from '../support/tars.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e6));

const DIRECTORIES = ['', 'a/', 'b/', 'a/c/', 'b/d/', 'a/c/e/'];

/** Files that stay what they are, whatever other entries do: a hard link to nothing would end the export. */
function isLinkable(name: string): boolean {
  return /^h\d$/.test(name);
}

/** Few names, so that layers meet: what one has as a file is a directory or a link in the next, or is taken away. */
function randomLayer(random: Random): Entry[] {
  const files: string[] = [];
  return Array.from({ length: random.int(5, 40) }, (_, row): Entry => {
    const directory = DIRECTORIES[random.int(0, DIRECTORIES.length - 1)]!;
    const name = `${directory}${'fgh'[random.int(0, 2)]}${random.int(0, 4)}`;
    const mode = 0o700 + random.int(0, 0o77);
    const common = { name, mode, mtimeSeconds: 1_000_000 + row };
    const kind = random.int(0, 19);
    const target = files[random.int(0, files.length - 1)];
    if (kind < 4 && isLinkable(name)) return { ...common, content: 'x' };
    if (kind === 0) return { ...common, type: '5', name: `${directory}${random.chance(0.5) ? 'f0' : ''}` };
    if (kind === 1) return { ...common, type: '2', linkName: random.chance(0.5) ? 'f1' : '/nowhere' };
    // Paths of other entries lead through it.
    if (kind === 2) return { ...common, type: '2', name: 'a/c', linkName: '/b/d' };
    if (kind === 3 && target !== undefined) return { ...common, type: '1', linkName: target };
    if (kind === 4) return { name: `${directory}.wh.f${random.int(0, 4)}` };
    if (kind === 5) return { name: `${directory}${random.chance(0.5) ? '.wh..wh..opq' : '.wh.c'}` };
    if (isLinkable(name)) files.push(name);
    const sizeBytes = random.chance(0.1) ? random.int(200_000, 700_000) : random.int(0, 3000);
    return { ...common, uid: row, content: noise(random.int(1, 1000), sizeBytes) };
  });
}

interface Served {
  readonly image: string;
  readonly store: string;
  readonly outside: string;
  readonly directory: string;
}

/** A registry with an image of these layers. */
async function serve(
  t: TestContext,
  layers: readonly Entry[][],
  format: SampleFormat,
  faultsFor: (digests: readonly string[]) => readonly FaultRule[] = () => [],
): Promise<Served> {
  const layoutDir = emptyLayout(t);
  const sources = layers.map((entries, i) => {
    const path = join(layoutDir, `${i}.tar`);
    writeFileSync(path, tarOf(...entries));
    return { kind: 'tar' as const, path };
  });
  const written = await writeSampleImage({ layoutDir, ref: 'it', format, sources });
  const faults = faultsFor(written.layers.map(({ digest }) => digest));
  const { host } = await startSandbox(t, { layout: layoutDir, faults });
  const outside = temporaryDirectory(t);
  return { image: `${host}/x:it`, store: temporaryDirectory(t), outside, directory: join(outside, 'out') };
}

/** Pulls with a follower and exports; returns how many rows were there before the export began to write, -1 when it wrote all. */
async function pullToRootfs(
  { image, store, directory }: Served,
  options: Partial<PullOptions> = {},
  limits: { readonly maxEntries?: number } = {},
) {
  const follower = new RootfsFollower({ store, directory, ...limits });
  try {
    const { layers } = await pullImage(image, { ...options, store, follower });
    const diffIds = layers.map(({ diffId }) => diffId);
    let keptRows = -1;
    const finish: RootfsFollower['finish'] = async (given) => {
      const begun = await follower.finish(given);
      const keep: BegunRootfs['keep'] = async (tree) => {
        const kept = await begun!.keep(tree);
        keptRows = kept.reduce((sum, one) => sum + one, 0);
        return kept;
      };
      return begun && { ...begun, keep };
    };
    await exportRootfs({ store, diffIds, directory, follower: { finish } });
    return { diffIds, keptRows };
  } finally {
    await follower.discard();
  }
}

/** Compares with what an export from the store makes; nothing else is left where the directory lies. */
async function assertAsLater(served: Served, diffIds: readonly string[], message?: string): Promise<void> {
  const { store, outside, directory } = served;
  const later = join(outside, 'later');
  await exportRootfs({ store, diffIds, directory: later });
  assert.deepEqual(listDirectory(directory), listDirectory(later), message);
  assert.deepEqual(readdirSync(outside).sort(), ['later', 'out'], message);
}

test('files written while layers arrive equal those of an export afterwards', async (t) => {
  t.diagnostic(`SEED=${SEED}`);
  const formats: readonly SampleFormat[] = SEED % 2 === 0 ? ['zstd:chunked', 'tar'] : ['estargz', 'gzip'];
  await Promise.all(
    formats.map(async (format, i) => {
      const random = seededRandom(SEED + i);
      const layers = Array.from({ length: 4 }, () => randomLayer(random));
      const served = await serve(t, layers, format);
      const { diffIds, keptRows } = await pullToRootfs(served);
      await assertAsLater(served, diffIds, `${SEED} ${format}`);
      assert.ok(keptRows > 0, `${SEED} ${format}: nothing was written early`);
    }),
  );
});

/** The second layer replaces and takes away what the first one has. */
const LAYERS: readonly Entry[][] = [
  [
    { name: 'large', content: noise(1, 3_000_000) },
    { name: 'd/gone', content: 'gone' },
    { name: 'd/kept', content: 'kept', mode: 0o600, mtimeSeconds: 5 },
    { name: 'was/a/directory', content: 'x' },
    { name: 'empty' },
  ],
  [
    { name: 'd/.wh.gone' },
    { name: 'was', content: 'a file' },
    { name: 'large2', content: noise(2, 2_000_000) },
    { name: 'd/new', content: 'new' },
  ],
];

test('an empty directory is filled while layers arrive, beside a layer that the store has', async (t) => {
  const served = await serve(t, LAYERS, 'gzip');
  const first = await serve(t, LAYERS.slice(0, 1), 'zstd:chunked');
  await pullImage(first.image, { store: served.store });
  mkdirSync(served.directory);
  const { diffIds, keptRows } = await pullToRootfs(served);
  assert.ok(keptRows >= 4, `${keptRows} rows were kept`);
  await assertAsLater(served, diffIds);
});

test('entries beyond a limit are left to the export, which keeps what was written before', async (t) => {
  const served = await serve(t, LAYERS, 'gzip');
  const { diffIds, keptRows } = await pullToRootfs(served, {}, { maxEntries: LAYERS[0]!.length });
  assert.equal(keptRows, 2);
  await assertAsLater(served, diffIds);
});

/** Files that gzip shrinks by a factor of thirty: nobody knows before how much room they take. */
const SHRINKING: readonly Entry[] = Array.from({ length: 1500 }, (_, i) => ({
  name: `d/${i}`,
  content: noise(i + 1, 64)
    .toString('hex')
    .repeat(48),
}));

test('on a disk with room for the store alone the pull succeeds: files written early are deleted', {
  skip: skipUnlessMount(),
}, async (t) => {
  const served = await serve(t, [[...SHRINKING]], 'gzip');
  const disk = smallDisk(t, 16 * 2 ** 20);
  const [store, directory] = [join(disk, 'store'), join(disk, 'out')];
  const { code, message } = await failureOf(pullToRootfs({ ...served, store, directory }));
  assert.equal(code, 'store-full', message);
  assert.deepEqual(readdirSync(disk), ['store']);
  assert.equal(listedImages(store).length, 1, 'the pull failed, and not the export behind it');
});

test('a repaired layer is verified before its files are written', async (t) => {
  const large = noise(1, 3_000_000);
  const old = await serve(t, [[{ name: 'other', content: large }]], 'zstd:chunked');
  const served = { ...(await serve(t, LAYERS, 'zstd:chunked')), store: old.store };
  await pullImage(old.image, { store: old.store });
  const { path, at } = findInPacks(old.store, large);
  flipByte(path, at + 1000);
  const { diffIds, keptRows } = await pullToRootfs(served);
  assert.equal(keptRows, -1);
  await assertAsLater(served, diffIds);
});

test('a pull that fails or is stopped leaves nothing in the directory', async (t) => {
  for (const isMissing of [true, false]) {
    const served = await serve(t, LAYERS, 'gzip', ([, path]) =>
      isMissing ? [{ match: { path: path! }, action: { status: 404 } }] : [],
    );
    const controller = new AbortController();
    const onEvent = ({ event }: PullEvent) => {
      // All of the first layer is there, and files of it are being written.
      if (event === 'layer') controller.abort();
    };
    const { code } = await failureOf(pullToRootfs(served, { onEvent, signal: controller.signal }));
    assert.equal(code, isMissing ? 'blob-not-found' : 'interrupted');
    assert.deepEqual(readdirSync(served.outside), []);
  }
});

test('threads that write files end when the store cannot be read', async (t) => {
  const [store, outside] = [temporaryDirectory(t), temporaryDirectory(t)];
  const { layers } = openStore(store);
  const threads: Worker[] = [];
  const ended: Promise<unknown>[] = [];
  const watch = (thread: Worker) => {
    threads.push(thread);
    ended.push(once(thread, 'exit'));
  };
  process.on('worker', watch);
  t.after(() => {
    process.off('worker', watch);
    for (const thread of threads) void thread.terminate();
  });
  const follower = new RootfsFollower({ store, directory: join(outside, 'out') });
  const diffIds = [digestOf(Buffer.from('1')), digestOf(Buffer.from('2'))] as const;
  follower.begin(diffIds);
  const extents = new ExtentList();
  extents.push(newPackId(), 0, 512);
  follower.follow(diffIds[0], 2 ** 20)!.feed(extents.toRows());
  rmSync(layers, { recursive: true });
  writeFileSync(layers, 'no directory');
  await follower.discard();
  assert.ok(threads.length > 0);
  // Each has ended by now: what has not is not waited for.
  const first = await Promise.race([Promise.all(ended), new Promise((resolve) => setImmediate(resolve))]);
  assert.ok(first !== undefined, 'a thread still lives');
  assert.deepEqual(readdirSync(outside), []);
});

test('a layer that the pull has verified is not hashed again, and a pack that has changed since is found', async (t) => {
  const served = await serve(t, LAYERS, 'gzip');
  const { store, outside } = served;
  const follower = new TagFollower();
  const { layers } = await pullImage(served.image, { store, follower });
  const diffIds = layers.map(({ diffId }) => diffId);
  assert.deepEqual([...follower.proven].sort(), [...diffIds].sort());
  const options = { store, diffIds, file: join(outside, 'tar') };
  await exportTar({ ...options, followed: follower });
  const tar = readFileSync(options.file);
  await exportTar(options);
  assert.ok(tar.equals(readFileSync(options.file)));
  // A hash that is made would tell of the layer, and not that it changed.
  const { path, at } = findInPacks(store, noise(2, 2_000_000));
  flipByte(path, at + 1_000_000);
  const { code, message } = await failureOf(exportTar({ ...options, followed: follower }));
  assert.equal(code, 'digest-mismatch');
  assert.match(message, /changed in the store while it was exported/);
});

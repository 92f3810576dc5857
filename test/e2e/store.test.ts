import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, type TestContext, test } from 'node:test';
import { type SandboxRegistry, startRegistry } from '../../src/sandbox/registry-server.js';
import { Lease } from '../../src/store/leases.js';
import { storePaths } from '../../src/store/paths.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { flipByte, packFiles } from '../support/packs.js';
import { ZPULL } from '../support/programs.js';
import { temporaryDirectory } from '../support/temporary.js';

interface Ending {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `zpull` on a store. */
async function zpull(store: string, ...args: string[]): Promise<Ending> {
  const child = spawn(process.execPath, [...ZPULL, ...args, '--store', store], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [exitCode] = (await closed) as [number | null];
  return { exitCode, stdout, stderr };
}

let registry: SandboxRegistry;
/** A store with both images of the fixture layout. */
let template: string;
let images: readonly [string, string];

before(async () => {
  registry = await startRegistry({ layout: FIXTURE_LAYOUT });
  template = mkdtempSync(join(tmpdir(), 'zpull-store-'));
  images = [`${registry.host}/x:chunked-v1`, `${registry.host}/x:chunked-v2`];
  assert.equal((await zpull(template, '-q', ...images)).exitCode, 0);
});
after(async () => {
  await registry.close();
  rmSync(template, { recursive: true, force: true });
});

/** A store of this test's own with both images. */
function twoImages(t: TestContext): string {
  const store = join(temporaryDirectory(t), 'store');
  cpSync(template, store, { recursive: true, preserveTimestamps: true });
  return store;
}

test('store verify says that all is whole, also of an empty store', async (t) => {
  const store = twoImages(t);
  assert.deepEqual(await zpull(store, 'store', 'verify', images[0]), {
    exitCode: 0,
    stdout: '3 layers checked, none damaged\n',
    stderr: '',
  });
  const { stdout } = await zpull(join(store, 'none'), 'store', 'verify', '--json');
  assert.deepEqual(JSON.parse(stdout), { checked: 0, damaged: [] });
});

test('store verify prints what is damaged and ends with 6; after a pull all is whole again', async (t) => {
  const store = twoImages(t);
  for (const path of packFiles(store, '.pack')) flipByte(path, Math.floor(statSync(path).size / 2));
  const json = await zpull(store, 'store', 'verify', '--json');
  assert.deepEqual([json.exitCode, json.stderr], [6, '']);
  const { damaged } = JSON.parse(json.stdout) as { damaged: { diffId: string; images: string[] }[] };
  assert.ok(damaged.length > 0);
  const { exitCode, stdout, stderr } = await zpull(store, 'store', 'verify');
  assert.equal(exitCode, 6);
  assert.match(stdout, /^LAYER +DAMAGED +IMAGES\nsha256:[0-9a-f]{64} /);
  assert.ok(stdout.includes(damaged[0]!.diffId) && stdout.includes(damaged[0]!.images[0]!));
  assert.match(stderr, /^zpull: \d layers? of \d damaged\nhint: .+\n$/);
  await zpull(store, '-q', ...images);
  assert.equal((await zpull(store, 'store', 'verify')).exitCode, 0);
});

test('an image that the store does not have is not found, exit code 3', async (t) => {
  const store = temporaryDirectory(t);
  for (const action of ['rm', 'verify']) {
    const { exitCode, stdout, stderr } = await zpull(store, 'store', action, 'alpine');
    assert.deepEqual([exitCode, stdout], [3, ''], action);
    assert.match(stderr, /^zpull: docker\.io\/library\/alpine:latest is not in the store .+\nhint: .+\n$/);
  }
});

test('an action takes the words that it takes', async (t) => {
  const store = temporaryDirectory(t);
  for (const words of [
    ['path', 'alpine'],
    ['verify', 'alpine', 'busybox'],
    ['rm'],
    ['ls', 'alpine', 'busybox'],
    ['ls', '--dry-run'],
    ['ls', '--older-than', '1d'],
    ['prune', '--older-than', 'soon'],
    ['clean'],
    [],
  ]) {
    const { exitCode, stderr } = await zpull(store, 'store', ...words);
    assert.equal(exitCode, 2, words.join(' '));
    assert.match(stderr, /^zpull: .+\nhint: .+\n$/);
  }
});

test('store ls lists what is there, as a table and as JSON, also of an empty store', async (t) => {
  const store = twoImages(t);
  const { exitCode, stdout, stderr } = await zpull(store, 'store', 'ls');
  assert.deepEqual([exitCode, stderr], [0, '']);
  assert.match(stdout, /^IMAGE +DIGEST +PLATFORM +SIZE +SHARED +LAST USED\n/);
  for (const image of images)
    assert.match(stdout, new RegExp(`^${image} +sha256:[0-9a-f]{64} +\\w+/\\w+ `, 'm'));
  const listing = JSON.parse((await zpull(store, 'store', 'ls', '--json')).stdout) as { images: object[] };
  assert.deepEqual(Object.keys(listing), ['images', 'brokenOff']);
  for (const image of listing.images) {
    const keys = Object.keys(image).toSorted().join(' ');
    assert.equal(keys, 'digest image lastUsed platform sharedBytes sizeBytes');
  }
  const empty = await zpull(join(store, 'none'), 'store', 'ls', '--json');
  assert.deepEqual(JSON.parse(empty.stdout), { images: [], brokenOff: [] });
});

test('store ls lists the images whose names or digests match a pattern', async (t) => {
  const store = twoImages(t);
  const listed = async (pattern: string): Promise<string[]> => {
    const { stdout } = await zpull(store, 'store', 'ls', pattern, '--json');
    return (JSON.parse(stdout) as { images: { image: string }[] }).images.map(({ image }) => image);
  };
  assert.deepEqual(await listed('*chunked-v2'), [images[1]]);
  assert.deepEqual(await listed(`${registry.host}/x`), [...images]);
  assert.deepEqual(await listed('alpine'), []);
});

test('store rm takes a digest, or the 12 digits of it that store ls shows', async (t) => {
  const store = twoImages(t);
  const { stdout } = await zpull(store, 'store', 'ls', '--json');
  const listed = (JSON.parse(stdout) as { images: { image: string; digest: string }[] }).images;
  const [first, second] = listed as [{ digest: string }, { digest: string; image: string }];
  assert.equal((await zpull(store, 'store', 'verify', first.digest)).exitCode, 0);
  assert.match((await zpull(store, 'store', 'rm', first.digest)).stdout, new RegExp(`^${first.digest} `));
  assert.equal((await zpull(store, 'store', 'rm', first.digest.slice(7))).exitCode, 3);
  const removed = await zpull(store, 'store', 'rm', second.digest.slice(7, 19), '--json');
  assert.equal(
    (JSON.parse(removed.stdout) as { removed: { image: string }[] }).removed[0]!.image,
    second.image,
  );
});

test('store rm removes an image, and prints its digest', async (t) => {
  const store = twoImages(t);
  const { exitCode, stdout, stderr } = await zpull(store, 'store', 'rm', images[0]);
  assert.deepEqual([exitCode, stderr], [0, '']);
  assert.match(stdout, /^sha256:[0-9a-f]{64} \w+\/\w+\n$/);
  assert.equal((await zpull(store, 'store', 'rm', images[0])).exitCode, 3);
  const removed = await zpull(store, 'store', 'rm', images[1], '--json');
  const { removed: list } = JSON.parse(removed.stdout) as { removed: { image: string }[] };
  assert.deepEqual(
    list.map(({ image }) => image),
    [images[1]],
  );
});

test('store prune says what it freed, and that it stopped for another process', async (t) => {
  const store = twoImages(t);
  const nothing = await zpull(store, 'store', 'prune', '--older-than', '30d');
  assert.deepEqual(nothing, {
    exitCode: 0,
    stdout: '0 B freed: 0 layers, 0 packs, 0 blobs removed\n',
    stderr: '',
  });
  await zpull(store, 'store', 'rm', images[0]);
  await zpull(store, 'store', 'rm', images[1]);
  const lease = new Lease(storePaths(store), 'pull');
  const stopped = await zpull(store, 'store', 'prune');
  lease.close();
  assert.deepEqual([stopped.exitCode, stopped.stdout], [0, nothing.stdout]);
  assert.match(
    stopped.stderr,
    /^zpull: stopped, because another process uses the store \(pull\)\nhint: .+\n$/,
  );
  const { stdout } = await zpull(store, 'store', 'prune', '--json');
  const { freedBytes, stoppedBy, ...counts } = JSON.parse(stdout) as Record<string, unknown>;
  assert.ok(Number(freedBytes) > 0);
  assert.equal(stoppedBy, null);
  const keys = 'removedBlobs removedLayers removedPacks rewrittenPacks';
  assert.equal(Object.keys(counts).toSorted().join(' '), keys);
  assert.deepEqual(JSON.parse((await zpull(store, 'store', 'ls', '--json')).stdout), {
    images: [],
    brokenOff: [],
  });
  const empty = await zpull(join(store, 'none'), 'store', 'prune', '--json');
  assert.equal((JSON.parse(empty.stdout) as { freedBytes: number }).freedBytes, 0);
});

test('several processes that pull at once into one store all succeed, and all is whole', async (t) => {
  const store = join(temporaryDirectory(t), 'store');
  const tags = ['chunked-v1', 'chunked-v2', 'chunked-v1'];
  const pulls = await Promise.all(tags.map((tag) => zpull(store, '-q', `${registry.host}/x:${tag}`)));
  assert.deepEqual(
    pulls.map(({ exitCode, stderr }) => [exitCode, stderr]),
    tags.map(() => [0, '']),
  );
  assert.equal((await zpull(store, 'store', 'verify')).exitCode, 0);
  const listing = JSON.parse((await zpull(store, 'store', 'ls', '--json')).stdout) as { images: object[] };
  assert.equal(listing.images.length, 2);
});

test('a store of another version is refused with a hint, exit code 7', async (t) => {
  const store = temporaryDirectory(t);
  mkdirSync(join(store, 'v2'));
  for (const action of ['ls', 'verify', 'prune']) {
    const { exitCode, stdout, stderr } = await zpull(store, 'store', action);
    assert.deepEqual([exitCode, stdout], [7, ''], action);
    assert.match(stderr, /^zpull: the store .* has the format v2, not v1\nhint: .+--store\.\n$/);
  }
});

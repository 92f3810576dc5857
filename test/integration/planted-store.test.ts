import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { exportTar } from '../../src/api/export.js';
import { listStore, pruneStore, removeImage, verifyStore } from '../../src/api/store.js';
import { Lease } from '../../src/store/leases.js';
import { openStore, storePaths } from '../../src/store/paths.js';
import { Sweep } from '../../src/store/sweep.js';
import { plant } from '../support/planted.js';
import type { PlantedJob, PlantedLine } from '../support/planted-child.js';
import { skipUnless, ZPULL } from '../support/programs.js';
import { failureOf, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const NOBODY = 65_534;
const AS_ROOT = process.getuid?.() !== 0 && 'needs root, to give files to another user';

/** A process that reads a FIFO or /dev/zero never ends. */
const LIMIT_MS = 120_000;
/** It takes 180 MB, as it does when nothing is planted; what is planted has 640 MiB or no end. */
const MAX_PEAK_BYTES = 320 * 2 ** 20;

async function pulledStore(t: TestContext) {
  const { host } = await startSandbox(t);
  const image = `${host}/x:chunked-v1`;
  const store = join(temporaryDirectory(t), 'store');
  const { result } = await pull(image, { store });
  return { image, store, diffIds: result.layers.map(({ diffId }) => diffId) };
}

/** A file that nobody may change, in a directory that nobody may change. */
function secretIn(t: TestContext) {
  const directory = temporaryDirectory(t);
  const secret = join(directory, 'secret');
  writeFileSync(secret, 'secret');
  const assertUntouched = (message: string) => {
    assert.equal(readFileSync(secret, 'utf8'), 'secret', message);
    assert.deepEqual(readdirSync(directory), ['secret'], message);
  };
  return { directory, secret, assertUntouched };
}

test('planted files hang nothing, fill no memory, and are fetched again or reported', {
  skip: skipUnless('mkfifo'),
}, async (t) => {
  const { image, store: template } = await pulledStore(t);
  const { secret, assertUntouched } = secretIn(t);
  const job: PlantedJob = { image, template, directory: temporaryDirectory(t), secret };
  const script = join(import.meta.dirname, '../support/planted-child.js');
  const child = spawn(process.execPath, [...process.execArgv, script, JSON.stringify(job)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  let text = '';
  child.stdout.on('data', (chunk) => {
    text += chunk;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  const lines = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as PlantedLine);
  assert.deepEqual([code, signal], [0, null], `it ended after ${text.slice(-200)}`);
  for (const line of lines) {
    if ('peakBytes' in line) {
      t.diagnostic(`${line.peakBytes} bytes at most`);
      assert.ok(line.peakBytes < MAX_PEAK_BYTES, `${line.peakBytes}`);
      continue;
    }
    const { kind, place, command, outcome } = line;
    const allowed = expectedOf(kind, place, command);
    assert.ok(allowed.includes(outcome), `${kind} as ${place}: ${command} gave ${outcome}, not ${allowed}`);
  }
  assertUntouched('the target of links');
});

/** A directory is never emptied: where a file must be, it is told, and the rest goes on. */
function expectedOf(kind: string, place: string, command: string): string[] {
  if (place !== 'everywhere') {
    if (command === 'lock') return kind === 'directory' && place === 'lock' ? ['store-broken'] : ['done'];
    const spoils =
      command === 'held'
        ? ['layer record', 'pack', 'bad runs']
        : ['image record', 'layer record', 'blob', 'pack', 'bad runs'];
    // Of a pack that is longer than its record says, hashing tells.
    if (kind === 'huge' && place === 'pack') return ['held'];
    return [spoils.includes(place) ? 'absent' : 'held'];
  }
  const isStuck = kind === 'directory';
  switch (command) {
    case 'verify':
      // Neither an image nor a layer has a name any more.
      return [isStuck ? 'whole' : 'damaged'];
    case 'rm':
      return ['image-not-found'];
    case 'export':
      return ['store-broken', 'digest-mismatch'];
    case 'pull':
      return [isStuck ? 'store-broken' : 'done'];
    case 'export again':
      return isStuck ? ['store-broken'] : ['done'];
    case 'verify again':
      return ['whole'];
    default:
      return ['done'];
  }
}

/** Every command on a store. */
function commandsOn(store: string, image: string, diffIds: readonly string[]) {
  const file = `${store}.tar`;
  return {
    pull: () => pull(image, { store }),
    ls: async () => listStore({ store }),
    rm: () => removeImage({ store, image }),
    prune: () => pruneStore({ store }),
    verify: () => verifyStore({ store }),
    export: () => exportTar({ store, diffIds, file }),
  };
}

test('a store with a link or a FIFO for a directory is refused by every command, and the target of the link stays as it is', {
  skip: skipUnless('mkfifo'),
}, async (t) => {
  const { image, store: template, diffIds } = await pulledStore(t);
  const { directory, secret, assertUntouched } = secretIn(t);
  for (const name of ['.', 'packs', 'layers', 'images', 'blobs', 'blobs/sha256', 'locks', 'leases']) {
    for (const kind of ['link', 'fifo'] as const) {
      const store = join(temporaryDirectory(t), 'store');
      cpSync(template, store, { recursive: true });
      // As the target of a link there is a directory of the same kind with files of somebody else.
      plant(kind, [join(store, 'v1', name)], kind === 'link' ? directory : secret);
      for (const [command, run] of Object.entries(commandsOn(store, image, diffIds))) {
        const message = `${command} with a ${kind} as ${name}`;
        const error = await failureOf(run());
        assert.deepEqual([error.code, error.exitCode], ['store-broken', 7], `${message}: ${error.message}`);
        assert.ok(error.hint !== undefined, message);
        assertUntouched(message);
      }
    }
  }
});

test('the root of a store may be a link, which the user named', async (t) => {
  const { image, store } = await pulledStore(t);
  const link = join(temporaryDirectory(t), 'link');
  symlinkSync(store, link);
  assert.equal((await pull(image, { store: link, policy: 'missing' })).result.fetchedBytes, 0);
  await pruneStore({ store: link });
  assert.equal(listStore({ store: link }).images.length, 1);
});

test('a directory that is replaced by a link while a prune deletes in it loses nothing', async (t) => {
  const paths = openStore(temporaryDirectory(t));
  const { directory, assertUntouched } = secretIn(t);
  const lease = new Lease(paths, 'prune');
  t.after(() => lease.close());
  writeFileSync(join(paths.layers, 'secret'), '');
  const sweep = new Sweep(paths, lease, Number.POSITIVE_INFINITY);
  const swap = () => {
    renameSync(paths.layers, `${paths.layers}.aside`);
    symlinkSync(directory, paths.layers);
    return true;
  };
  await assert.rejects(sweep.files(paths.layers, swap), { code: 'store-broken' });
  assertUntouched('the target');
});

test('a world-writable store is refused, a group-writable one is not', {
  skip: process.platform === 'win32' && 'no modes here',
}, async (t) => {
  const { image, store, diffIds } = await pulledStore(t);
  const names = [
    '.',
    'v1',
    'v1/packs',
    'v1/layers',
    'v1/images',
    'v1/blobs',
    'v1/blobs/sha256',
    'v1/locks',
    'v1/leases',
  ];
  for (const name of names) {
    const path = join(store, name);
    const { mode } = statSync(path);
    for (const more of [0o002, 0o1002]) {
      chmodSync(path, mode | more);
      const error = await failureOf(commandsOn(store, image, diffIds).ls());
      assert.deepEqual([error.code, error.exitCode], ['store-denied', 7], name);
      assert.match(error.hint ?? '', /chmod o-w .*--store/);
    }
    chmodSync(path, mode | 0o020);
    await commandsOn(store, image, diffIds).ls();
  }
  const common = temporaryDirectory(t);
  chmodSync(common, 0o1777);
  assert.throws(() => openStore(common), { code: 'store-denied' });
  assert.deepEqual(readdirSync(common), [], 'nothing is made where it is refused');
  chmodSync(join(store, 'v1'), 0o777);
  for (const [command, run] of Object.entries(commandsOn(store, image, diffIds)))
    assert.equal((await failureOf(run())).code, 'store-denied', command);
});

test('a store that is created under a umask of 0 is writable for owner and group only', {
  skip: process.platform === 'win32' && 'no modes here',
}, async (t) => {
  const before = process.umask(0);
  t.after(() => process.umask(before));
  const { store } = await pulledStore(t);
  for (const entry of readdirSync(store, { recursive: true, withFileTypes: true }))
    assert.equal(statSync(join(entry.parentPath, entry.name)).mode & 0o002, 0, entry.name);
  assert.equal(listStore({ store }).images.length, 1);
});

test("each command warns once of another user's store, unless it is quiet", {
  skip: AS_ROOT,
}, async (t) => {
  const { image, store } = await pulledStore(t);
  const said = async (...args: string[]) => {
    const child = spawn(process.execPath, [...ZPULL, ...args, '--store', store], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let text = '';
    child.stderr.on('data', (chunk) => {
      text += chunk;
    });
    const [code] = await once(child, 'close');
    assert.equal(code, 0, text);
    return text.match(/warning: the store .* belongs to user 65534/g)?.length ?? 0;
  };
  assert.equal(await said('store', 'ls'), 0);
  chownSync(join(store, 'v1', 'packs'), NOBODY, NOBODY);
  const { events } = await pull(image, { store });
  assert.deepEqual(warnings(events), [
    `the store ${store} belongs to user ${NOBODY}, who can change its contents`,
  ]);
  const pulls = ['pull', image, image, '--policy', 'missing'];
  const counts = await Promise.all([
    said(...pulls),
    said(...pulls, '-q'),
    said('store', 'ls'),
    said('store', 'prune', '-q'),
  ]);
  assert.deepEqual(counts, [1, 0, 1, 0]);
});

test('a lease that is replaced by a link goes on renewing its old file, and writes nothing to the target', (t) => {
  const { secret, assertUntouched } = secretIn(t);
  const paths = storePaths(temporaryDirectory(t));
  t.mock.timers.enable({ apis: ['setInterval'] });
  mkdirSync(join(paths.root, 'v1'));
  const lease = new Lease(paths, 'pull');
  const [name = ''] = readdirSync(paths.leases);
  const path = join(paths.leases, name);
  rmSync(path);
  symlinkSync(secret, path);
  t.mock.timers.tick(3000);
  assertUntouched('after three beats');
  lease.close();
  assertUntouched('after the end');
  assert.ok(!existsSync(path));
});

test('without descriptors for directories, those of other users are refused, and links as well', {
  skip: process.platform === 'win32' && 'no owners here',
}, async (t) => {
  const root = temporaryDirectory(t);
  const script = `
    Object.defineProperty(process, 'platform', { value: 'freebsd' });
    const { guardDirectory, withGuarded } = await import(${JSON.stringify(new URL('../../src/files/guarded-directory.js', import.meta.url).href)});
    const guarded = guardDirectory(process.argv[1], 'a', 'b');
    try { console.log(withGuarded(guarded + '/x', (at) => at)); } catch (error) { console.log(error.code); }
  `;
  const run = async () => {
    const child = spawn(process.execPath, ['--input-type=module', '-e', script, root], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.on('data', (chunk) => {
      text += chunk;
    });
    await once(child, 'close');
    return text.trim();
  };
  mkdirSync(join(root, 'a/b'), { recursive: true });
  assert.equal(await run(), join(root, 'a/b/x'));
  if (AS_ROOT === false) {
    chownSync(join(root, 'a'), NOBODY, NOBODY);
    assert.equal(await run(), 'store-denied');
  }
  rmSync(join(root, 'a'), { recursive: true });
  mkdirSync(join(root, 'c/b'), { recursive: true });
  symlinkSync('c', join(root, 'a'));
  assert.equal(await run(), 'store-broken');
});

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { copyImage } from '../../src/api/copy.js';
import { exportDockerArchive, exportLayers, exportRootfs, exportTar } from '../../src/api/export.js';
import { failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { storeTars, tarOf } from '../support/tars.js';
import { temporaryDirectory } from '../support/temporary.js';
import { freshStore } from '../unit/store/support.js';

const API = new URL('../../src/api/', import.meta.url).href;
const skip = skipUnlessMount();
/** Files that take more room than their bytes: a page each on a disk in memory, long names in a tar. */
const CRUMBS = Array.from({ length: 1500 }, (_, row) => ({
  name: `${'long name '.repeat(15)}/${row} ${'long name '.repeat(15)}`,
  content: 'x',
}));

test('a destination that runs out of room is told as that, and nothing is left there', {
  skip,
}, async (t) => {
  const paths = freshStore(t);
  const { diffIds } = await storeTars(paths, tarOf(...CRUMBS));
  const disk = smallDisk(t, 2 * 2 ** 20);
  for (const exporting of [
    () => exportRootfs({ store: paths.root, diffIds, directory: join(disk, 'out') }),
    () => exportTar({ store: paths.root, diffIds, file: join(disk, 'out.tar') }),
  ]) {
    const { code, message, hint } = await failureOf(exporting());
    assert.deepEqual([code, hint?.includes('another destination')], ['store-full', true]);
    assert.match(message, /ENOSPC/);
    assert.deepEqual(readdirSync(disk), []);
  }
});

test('a destination without room is refused before anything is written there', { skip }, async (t) => {
  const registry = await startSandbox(t);
  const reference = `${registry.host}/a:chunked-v1`;
  const { result } = await pull(reference, { store: join(temporaryDirectory(t), 'store') });
  const { store, digest, layers } = result;
  const diffIds = layers.map(({ diffId }) => diffId);
  const disk = smallDisk(t, 64 * 1024);
  const directory = join(disk, 'out');
  for (const [exporting, left] of [
    [() => exportRootfs({ store, diffIds, directory }), []],
    [() => exportTar({ store, diffIds, file: directory }), []],
    [() => exportDockerArchive({ store, digest, reference, file: directory }), []],
    [() => exportLayers({ store, diffIds, directory }), ['out']],
  ] as const) {
    const { code, exitCode, message, hint } = await failureOf(exporting());
    assert.deepEqual([code, exitCode, hint?.includes('another destination')], ['store-full', 7, true]);
    assert.match(message, /needs [\d.]+ [kMG]?B and has [\d.]+ [kMG]?B free: [\d.]+ [kMG]?B are missing$/);
    assert.deepEqual(readdirSync(disk), left);
  }
});

/** Has every file that is written below a directory end with an error, but for journals and locks. */
const hookOf = (directory: string) => `
  import fs from 'node:fs';
  import { syncBuiltinESMExports } from 'node:module';
  import { isMainThread } from 'node:worker_threads';
  const { openSync, closeSync, readlinkSync } = fs;
  const written = new Set();
  const O_PATH = 0o10000000;
  fs.openSync = (path, flags, mode) => {
    const fd = openSync(path, flags, mode);
    const real = process.platform === 'linux' ? readlinkSync('/proc/self/fd/' + fd) : String(path);
    // What the main thread has in a layout are locks, journals and files that threads open again.
    const isOurs = real.startsWith(${JSON.stringify(directory)}) && !real.endsWith('.ranges');
    const isMade = isMainThread && real.includes('/layout/');
    if (isOurs && !isMade && flags !== 'r' && !(flags & O_PATH)) written.add(fd);
    return fd;
  };
  fs.closeSync = (fd) => {
    closeSync(fd);
    if (written.delete(fd)) throw Object.assign(new Error('EDQUOT'), { code: 'EDQUOT' });
  };
  syncBuiltinESMExports();`;

/** Tells how each way of writing ends. */
const SCRIPT = `
  import { copyImage } from ${JSON.stringify(`${API}copy.js`)};
  import { exportLayers, exportRootfs, exportTar } from ${JSON.stringify(`${API}export.js`)};
  const [common, image, out] = JSON.parse(process.argv[2]);
  for (const working of [
    () => exportTar({ ...common, file: out + '/x.tar' }),
    () => exportRootfs({ ...common, directory: out + '/rootfs' }),
    () => exportLayers({ ...common, directory: out }),
    () => copyImage(image, { destination: { kind: 'layout', path: out + '/layout' } }),
  ]) {
    const { code, message } = await working().catch((error) => error);
    console.log(code + ' ' + message);
  }`;

test('what only the closing of a file tells of is told as that', async (t) => {
  const registry = await startSandbox(t);
  const image = `${registry.host}/a:chunked-v1`;
  const directory = temporaryDirectory(t);
  const { result } = await pull(image, { store: join(directory, 'store') });
  const { store, layers } = result;
  const common = { store, diffIds: layers.map(({ diffId }) => diffId) };
  const out = join(directory, 'out');
  mkdirSync(out);
  const [hook, script] = ['hook.mjs', 'script.mjs'].map((name) => join(directory, name)) as [string, string];
  writeFileSync(hook, hookOf(out));
  writeFileSync(script, SCRIPT);
  const args = [...process.execArgv, '--import', hook, script, JSON.stringify([common, image, out])];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  const ends = stdout.trim().split('\n');
  assert.equal(ends.length, 4);
  for (const end of ends) assert.match(end, /^store-full could not close .*: the disk quota is used up/);
  assert.deepEqual(readdirSync(out), ['layout']);
});

test('a copy to a disk without room names nothing', { skip }, async (t) => {
  const registry = await startSandbox(t);
  const path = join(smallDisk(t, 200 * 1024), 'layout');
  const destination = { kind: 'layout', path } as const;
  const { code, hint } = await failureOf(copyImage(`${registry.host}/a:chunked-v1`, { destination }));
  assert.deepEqual([code, hint?.includes('another destination')], ['store-full', true]);
  assert.equal(existsSync(join(path, 'index.json')), false);
});

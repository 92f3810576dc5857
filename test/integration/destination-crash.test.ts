import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { copyImage } from '../../src/api/copy.js';
import { exportLayers, exportRootfs, exportTar } from '../../src/api/export.js';
import { LOCK_DIRECTORY } from '../../src/copy/layout-lock.js';
import { filesOf, killEverywhere, makeOld, runWithHook } from '../support/crash.js';
import { emptyLayout, noise, overlappingImages, tarOf, writeTars } from '../support/layout.js';
import { ZPULL } from '../support/programs.js';
import { pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

/** Directories of locks; what becomes of those of the dead is tested elsewhere. */
const LOCKS = [LOCK_DIRECTORY, 'x.tar.part.lock'];

/** A small image of two layers, as `x:it`. */
async function serveImage(t: TestContext): Promise<string> {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf({ one: noise(1, 30_000) }), tarOf({ two: noise(2, 20_000) })]);
  const { host } = await startSandbox(t, { layout });
  return `${host}/x:it`;
}

/**
 * Lets a process write into a directory, and looks at what a kill at each step leaves there: what has the name of something
 * whole is whole, and `again` completes it as if nothing had been.
 */
async function assertSurvivesKills(
  t: TestContext,
  args: (directory: string) => string[],
  again: (directory: string) => Promise<unknown>,
): Promise<string[]> {
  const { store: directory, steps, left } = await killEverywhere(t, args, temporaryDirectory(t));
  const whole = filesOf(directory);
  assert.ok(left.length > 0 && Object.keys(whole).length > 0);
  const seen = new Set<string>();
  for (const { step, store: copy } of left) {
    const files = Object.entries(filesOf(copy)).filter(
      ([path]) => !LOCKS.some((lock) => path.includes(lock)),
    );
    for (const [path, hash] of files)
      if (whole[path] !== undefined) assert.equal(hash, whole[path], `${path} before ${step}`);
    if (seen.size === seen.add(JSON.stringify(files)).size) continue;
    for (const lock of LOCKS) makeOld(join(copy, lock));
    await again(copy);
    assert.deepEqual(filesOf(copy), whole, step);
  }
  return steps.map(({ name }) => name);
}

test('a kill at any step of a copy into a layout leaves only proven names, and the next copy completes', async (t) => {
  const image = await serveImage(t);
  const args = (path: string) => [...ZPULL, 'copy', image, `oci:${path}:it`];
  const steps = await assertSurvivesKills(t, args, (path) =>
    copyImage(image, { destination: { kind: 'layout', path, tag: 'it' } }),
  );
  const named = steps.findIndex((name) => name.startsWith('main rename to store/index.json'));
  assert.match(steps[named - 1]!, /^main sync store.index.json.tmp/, 'other images are not lost with it');
});

test('a kill at any step of a copy into a file leaves no file of that name, and the next copy completes', async (t) => {
  const image = await serveImage(t);
  const fileIn = (directory: string) => join(directory, 'x.tar');
  const args = (directory: string) => [...ZPULL, 'copy', image, `oci-archive:${fileIn(directory)}:it`];
  await assertSurvivesKills(t, args, (directory) =>
    copyImage(image, { destination: { kind: 'archive', path: fileIn(directory), tag: 'it' } }),
  );
});

test('a copy that was killed goes on: only what lacks is fetched', async (t) => {
  const layout = await overlappingImages(t);
  const { host } = await startSandbox(t, { layout });
  const image = `${host}/x:one`;
  const directory = temporaryDirectory(t);
  const store = join(directory, 'layout');
  const args = [...ZPULL, 'copy', image, `oci:${store}:it`];
  const killAt = 'worker write sha256/HEX.part.ranges 4';
  assert.equal((await runWithHook(t, { store, log: join(directory, 'log'), args, killAt })).end, 'SIGKILL');
  const blobs = join(store, 'blobs', 'sha256');
  const names = readdirSync(blobs);
  const noted = names
    .filter((name) => name.endsWith('.part.ranges') && existsSync(join(blobs, name.replace('.ranges', ''))))
    .flatMap((name) => readFileSync(join(blobs, name), 'latin1').split('\n').slice(1, -1))
    .map((line) => line.split(' ').map(Number) as [number, number]);
  const named = names.filter((name) => !name.includes('.')).map((name) => statSync(join(blobs, name)).size);
  const resumedBytes = noted.reduce((sum, [start, end]) => sum + end - start, 0);
  const reusedBytes = named.reduce((sum, size) => sum + size, 0);
  assert.ok(resumedBytes > 0);
  makeOld(join(store, LOCK_DIRECTORY));
  const result = await copyImage(image, { destination: { kind: 'layout', path: store, tag: 'it' } });
  assert.deepEqual([result.resumedBytes, result.reusedBytes], [resumedBytes, reusedBytes]);
  const whole = filesOf(join(layout, 'blobs', 'sha256'));
  for (const [path, hash] of Object.entries(filesOf(blobs))) assert.equal(hash, whole[path]);
  const total = readdirSync(blobs).reduce((sum, name) => sum + statSync(join(blobs, name)).size, 0);
  const manifest = total - result.fetchedBytes - resumedBytes - reusedBytes;
  assert.ok(
    manifest > 0 && manifest < 2000,
    `${manifest}: all but the manifest is fetched, resumed or reused`,
  );
});

test('of a range that a kill broke off hardly more than a mebibyte is fetched again', async (t) => {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf({ one: noise(1, 6 * 2 ** 20) })]);
  const { host } = await startSandbox(t, { layout });
  const directory = temporaryDirectory(t);
  const store = join(directory, 'layout');
  // Ranges of 1.5 MiB: a line for the first mebibyte and one for the rest.
  const args = [...ZPULL, 'copy', `${host}/x:it`, `oci:${store}`, '--connections', '1'];
  const killAt = 'worker write sha256/HEX.part.ranges 4';
  assert.equal((await runWithHook(t, { store, log: join(directory, 'log'), args, killAt })).end, 'SIGKILL');
  const blobs = join(store, 'blobs', 'sha256');
  const part = readdirSync(blobs).find((name) => name.endsWith('.part'))!;
  const writtenBytes = readFileSync(join(blobs, part)).findLastIndex((byte) => byte !== 0) + 1;
  makeOld(join(store, LOCK_DIRECTORY));
  const { resumedBytes } = await copyImage(`${host}/x:it`, { destination: { kind: 'layout', path: store } });
  assert.ok(writtenBytes > 2.5 * 2 ** 20, `${writtenBytes}`);
  assert.ok(writtenBytes - resumedBytes < 1.1 * 2 ** 20, `${resumedBytes} of ${writtenBytes}`);
});

test('what a killed export left is gone after the next one, and never had the name', async (t) => {
  const image = await serveImage(t);
  const store = temporaryDirectory(t);
  const { result } = await pull(image, { store });
  const diffIds = result.layers.map(({ diffId }) => diffId);
  const kinds: [string, (path: string) => Promise<unknown>][] = [
    ['tar', (file) => exportTar({ store, diffIds, file })],
    ['rootfs', (directory) => exportRootfs({ store, diffIds, directory })],
    ['layers', (directory) => exportLayers({ store, diffIds, directory })],
  ];
  for (const [kind, again] of kinds) {
    const args = (directory: string) => [...ZPULL, 'export', image, `${kind}:${join(directory, 'x')}`];
    const inStore = (directory: string) => [...args(directory), '--store', store];
    await assertSurvivesKills(t, inStore, (directory) => again(join(directory, 'x')));
  }
});

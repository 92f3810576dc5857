import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { copyImage, exportDockerArchive, exportLayers, exportRootfs, exportTar } from '../../src/index.js';
import { failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { storeTars, tarOf } from '../support/tars.js';
import { temporaryDirectory } from '../support/temporary.js';
import { freshStore } from '../unit/store/support.js';

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
    assert.match(message, /needs \d+ bytes and has \d+ free: \d+ bytes are missing$/);
    assert.deepEqual(readdirSync(disk), left);
  }
});

test('a copy to a disk without room names nothing', { skip }, async (t) => {
  const registry = await startSandbox(t);
  const path = join(smallDisk(t, 200 * 1024), 'layout');
  const destination = { kind: 'layout', path } as const;
  const { code, hint } = await failureOf(copyImage(`${registry.host}/a:chunked-v1`, { destination }));
  assert.deepEqual([code, hint?.includes('another destination')], ['store-full', true]);
  assert.equal(existsSync(join(path, 'index.json')), false);
});

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspectImage } from '../../src/api/pull.js';
import { listStore } from '../../src/api/store.js';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { storePaths } from '../../src/store/paths.js';
import { DIALECT_LAYOUT, FORMATS_LAYOUT } from '../support/fixture-layout.js';
import { packFiles } from '../support/packs.js';
import { pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

/** Everything below a directory, with what changes when it is written, renamed or made again. */
function listing(root: string): Map<string, string> {
  const names = existsSync(root) ? ['', ...readdirSync(root, { recursive: true, encoding: 'utf8' })] : [];
  return new Map(
    names.map((name) => {
      const path = join(root, name);
      const { ino, mode, mtimeMs, ctimeMs, size } = lstatSync(path);
      const hash = lstatSync(path).isFile()
        ? createHash('sha256').update(readFileSync(path)).digest('hex')
        : '';
      return [name, [ino, mode, mtimeMs, ctimeMs, size, hash].join(' ')];
    }),
  );
}

test('an inspection and a listing make no store, nor a directory on the way to it', async (t) => {
  const noRanges: FaultRule[] = [{ match: { path: '/blobs/', range: 'any' }, action: { ignoreRange: true } }];
  const images = [
    [{}, 'chunked-v1'],
    [{ faults: noRanges }, 'chunked-v1'],
    [{ layout: FORMATS_LAYOUT }, 'gzip'],
    [{ layout: DIALECT_LAYOUT }, 'estargz'],
  ] as const;
  for (const [options, tag] of images) {
    const { host } = await startSandbox(t, options);
    const root = temporaryDirectory(t);
    const before = listing(root);
    const store = join(root, 'not', 'there');
    const inspection = await inspectImage(`${host}/x:${tag}`, { store });
    assert.ok(inspection.layers.length > 0 && inspection.fetchBytes > 0);
    assert.ok((inspection.config as { rootfs?: object }).rootfs !== undefined);
    assert.deepEqual(listStore({ store }), { images: [], brokenOff: [] });
    assert.deepEqual(listing(root), before);
  }
});

test('an inspection and a listing change nothing of a store, damaged or not', async (t) => {
  const { host } = await startSandbox(t);
  const store = temporaryDirectory(t);
  await pull(`${host}/x:chunked-v1`, { store });
  const { blobs, leases, locks } = storePaths(store);
  for (const directory of [leases, locks]) writeFileSync(join(directory, 'stale.tmp'), '');
  const look = async () => {
    const before = listing(store);
    await inspectImage(`${host}/x:chunked-v1`, { store, policy: 'missing' });
    await inspectImage(`${host}/x:chunked-v2`, { store });
    const { images } = listStore({ store });
    assert.deepEqual(listing(store), before);
    return images.length;
  };
  assert.equal(await look(), 1);
  // Manifest and config are not what their names say.
  for (const name of readdirSync(blobs)) writeFileSync(join(blobs, name), 'damaged');
  for (const path of packFiles(store, '.idx')) truncateSync(path, lstatSync(path).size - 7);
  for (const path of packFiles(store, '.pack')) truncateSync(path, 1000);
  assert.equal(await look(), 0);
});

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { exportLayers } from '../../../src/export/export-layers.js';
import type { Digest } from '../../../src/format/digest.js';
import { formatBytes } from '../../../src/format/figures.js';
import { ExtentList } from '../../../src/store/extents.js';
import { writeLayerRecord } from '../../../src/store/layer-record.js';
import { packPath, type StorePaths } from '../../../src/store/paths.js';
import { flipByte } from '../../support/packs.js';
import { storeEndlessLayer } from '../../support/tars.js';
import { temporaryDirectory } from '../../support/temporary.js';
import { digestOf, freshStore, writePack } from '../store/support.js';

/** A layer whose tar lies in two packs, in another order than it reads. */
async function storeLayer(paths: StorePaths): Promise<{ diffId: Digest; tar: Buffer; pack: string }> {
  const [first, second, third] = [randomBytes(100_000), randomBytes(50), randomBytes(3 * 2 ** 20)];
  const one = writePack(paths, [third!, first!]);
  const two = writePack(paths, [second!]);
  const extents = new ExtentList();
  extents.push(one.id, one.offsets[1]!, first!.length);
  extents.push(two.id, two.offsets[0]!, second!.length);
  extents.push(one.id, one.offsets[0]!, third!.length);
  const tar = Buffer.concat([first!, second!, third!]);
  const diffId = digestOf(tar);
  await writeLayerRecord(paths, { diffId, extents });
  return { diffId, tar, pack: packPath(paths, two.id) };
}

async function prepare(t: TestContext) {
  const paths = freshStore(t);
  return { paths, directory: join(temporaryDirectory(t), 'not', 'yet'), ...(await storeLayer(paths)) };
}

test('a layer is written as its tar under its DiffID, into a directory that is made', async (t) => {
  const { paths, directory, diffId, tar } = await prepare(t);
  const other = await storeLayer(paths);
  const diffIds = [other.diffId, diffId, other.diffId];
  const files = await exportLayers({ store: paths.root, diffIds, directory });
  assert.deepEqual(
    files,
    diffIds.map((id) => join(directory, `${id.slice(7)}.tar`)),
  );
  assert.ok(readFileSync(files[1]!).equals(tar));
  assert.ok(readFileSync(files[0]!).equals(other.tar));
  assert.equal(readdirSync(directory).length, 2);
});

test('a layer whose bytes are damaged gets no file; what was there under its name stays', async (t) => {
  const { paths, directory, diffId, pack } = await prepare(t);
  const good = await storeLayer(paths);
  flipByte(pack, 20);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, `${diffId.slice(7)}.tar`), 'from before');
  const diffIds = [diffId, good.diffId];
  await assert.rejects(exportLayers({ store: paths.root, diffIds, directory }), {
    code: 'digest-mismatch',
    message: new RegExp(diffId),
  });
  assert.deepEqual(readdirSync(directory).sort(), diffIds.map((id) => `${id.slice(7)}.tar`).sort());
  assert.equal(readFileSync(join(directory, `${diffId.slice(7)}.tar`), 'utf8'), 'from before');
});

test('a layer that the store does not have is named', async (t) => {
  const { paths, directory } = await prepare(t);
  const diffId = digestOf('nothing');
  await assert.rejects(exportLayers({ store: paths.root, diffIds: [diffId], directory }), {
    code: 'store-broken',
    message: new RegExp(diffId),
  });
  await assert.rejects(exportLayers({ store: paths.root, diffIds: ['sha256:zz'], directory }), {
    code: 'metadata-malformed',
  });
});

test('a disk without room is refused with the missing bytes; existing files need no room', async (t) => {
  const { paths, directory, diffId, tar } = await prepare(t);
  const there = await storeLayer(paths);
  const endless = await storeEndlessLayer(paths);
  const name = `${there.diffId.slice(7)}.tar`;
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, name), there.tar);
  const diffIds = [diffId, there.diffId, endless.diffId];
  const needed = tar.length + endless.tarBytes;
  await assert.rejects(exportLayers({ ...endless.guard, store: paths.root, diffIds, directory }), {
    code: 'store-full',
    message: new RegExp(`^${directory} needs ${formatBytes(needed)} and .* are missing$`),
  });
  assert.deepEqual(readdirSync(directory), [name]);
});

test('a destination that is no directory is the reason given', async (t) => {
  const { paths, diffId } = await prepare(t);
  const file = join(temporaryDirectory(t), 'file');
  writeFileSync(file, '');
  await assert.rejects(exportLayers({ store: paths.root, diffIds: [diffId], directory: file }), {
    message: new RegExp(file),
  });
});

test('an export that is aborted ends with the reason and leaves no unfinished file', async (t) => {
  const { paths, directory, diffId } = await prepare(t);
  const reason = new Error('enough');
  const controller = new AbortController();
  const exporting = exportLayers({
    store: paths.root,
    diffIds: [diffId],
    directory,
    signal: controller.signal,
  });
  controller.abort(reason);
  await assert.rejects(exporting, { code: 'interrupted', cause: reason });
  assert.deepEqual(existsSync(directory) ? readdirSync(directory) : [], []);
});

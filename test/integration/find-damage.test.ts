import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { parseDigest } from '../../src/format/digest.js';
import { parseChunkedAnnotations } from '../../src/format/metadata-position.js';
import { createCounters } from '../../src/pool/shared-memory.js';
import { WorkerPool } from '../../src/pool/worker-pool.js';
import { deleteBlob } from '../../src/store/image-record.js';
import { readLayerRecord } from '../../src/store/layer-record.js';
import { storePaths } from '../../src/store/paths.js';
import { emptyLayout, noise, readConfig, readManifest, tarOf, writeTars } from '../support/layout.js';
import { networkSetup } from '../support/network.js';
import { findInPacks, flipByte, packFiles } from '../support/packs.js';
import { pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const ONE = noise(1, 30_000);
const TWO = noise(2, 20_000);
const THREE = noise(3, 40_000);

/** A store with an image of one layer, a pool of one thread over it, and the layer as a task wants it. */
async function pulled(t: TestContext) {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'it', [tarOf({ one: ONE, two: TWO, three: THREE })]);
  const manifest = readManifest(layout, 'it');
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  await pull(`${host}/x:it`, { store });
  const setup = { storeRoot: store, counters: createCounters(), network: networkSetup() };
  const pool = await WorkerPool.start({ threads: 1, tasksPerThread: 1, setup, onEvent: () => {} });
  t.after(() => pool.destroy());
  const { digest, size, annotations } = manifest.layers[0]!;
  const positions = parseChunkedAnnotations(annotations, size)!;
  const blob = {
    url: `http://${host}/v2/x/blobs/${digest}`,
    digest: parseDigest(digest, 'blob'),
    sizeBytes: size,
  };
  const location = { by: 'annotations', ...positions } as const;
  const { port1, port2: port } = new MessageChannel();
  port1.on('message', () => port1.postMessage(null));
  const { metadata } = await pool.run({ task: 'read-metadata', blob, location, port }, [port]);
  const { table, tarSplit } = metadata!;
  const diffId = parseDigest(readConfig(layout, manifest).rootfs.diff_ids[0]!, 'DiffID');
  const extents = readLayerRecord(storePaths(store), diffId)!.extents.toRows();
  const layer = { table, blob, tarSplit: tarSplit! };
  const find = () => pool.run({ task: 'find-damage', ...layer, extents });
  return { store, find, tarSplitDigest: tarSplit!.digest };
}

test('an intact layer has no damage', async (t) => {
  const { store, find } = await pulled(t);
  const damage = await find();
  assert.deepEqual([damage.contents, [...damage.tarRanges]], [[], []]);
  assert.deepEqual(packFiles(store, '.bad'), []);
});

test('corrupt contents and headers are found although another pull has removed the tar-split', async (t) => {
  const { store, find, tarSplitDigest } = await pulled(t);
  const two = findInPacks(store, TWO);
  flipByte(two.path, two.at + 100);
  flipByte(two.path, findInPacks(store, THREE).at - 20);
  await deleteBlob(storePaths(store), tarSplitDigest);
  const { contents, tarRanges } = await find();
  assert.deepEqual(contents, [1]);
  // A header's block before each content; the padding behind a content counts to the next one's.
  const end = 512 + 30_208 + 512 + 20_000;
  assert.deepEqual([...tarRanges], [end, end + 480 + 512]);
  assert.equal(packFiles(store, '.bad').length, 1);
});

import assert from 'node:assert/strict';
import fs, { readdirSync, readFileSync, renameSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { ExtentList } from '../../../src/store/extents.js';
import {
  decodeLayerRecord,
  encodeLayerRecord,
  readLayerRecord,
  writeLayerRecord,
} from '../../../src/store/layer-record.js';
import { markBad } from '../../../src/store/pack-files.js';
import { layerRecordPath, newPackId, packPath, type StorePaths } from '../../../src/store/paths.js';
import { digestOf, freshStore, seededRandom, sha256, writePack } from './support.js';

const DIFF_ID = digestOf('the tar');

function listed(list: ExtentList): unknown[] {
  return Array.from({ length: list.count }, (_, i) => [list.packAt(i), list.offsetAt(i), list.lengthAt(i)]);
}

function someExtents(): ExtentList {
  const random = seededRandom(11);
  const packs = Array.from({ length: 5 }, newPackId);
  const extents = new ExtentList();
  for (let i = 0; i < 40; i++)
    extents.push(packs[Math.floor(random() * 5)]!, Math.floor(random() * 2 ** 42), 1 + i * 2 ** 32);
  return extents;
}

test('a layer record is decoded as it was encoded', () => {
  for (const extents of [someExtents(), new ExtentList()]) {
    const record = decodeLayerRecord(encodeLayerRecord({ diffId: DIFF_ID, extents }), DIFF_ID);
    assert.equal(record?.diffId, DIFF_ID);
    assert.deepEqual(listed(record.extents), listed(extents));
  }
});

test('a layer record with any byte changed, removed or added is invalid', () => {
  const bytes = encodeLayerRecord({ diffId: DIFF_ID, extents: someExtents() });
  for (let i = 0; i < bytes.length; i++) {
    bytes[i]! ^= 1 << (i % 8);
    assert.equal(decodeLayerRecord(bytes, DIFF_ID), undefined, `byte ${i}`);
    bytes[i]! ^= 1 << (i % 8);
    assert.equal(decodeLayerRecord(bytes.subarray(0, i), DIFF_ID), undefined, `cut at ${i}`);
  }
  assert.equal(decodeLayerRecord(Buffer.concat([bytes, Buffer.alloc(1)]), DIFF_ID), undefined);
  assert.ok(decodeLayerRecord(bytes, DIFF_ID));
});

test('a layer record of another DiffID is invalid', () => {
  const bytes = encodeLayerRecord({ diffId: DIFF_ID, extents: someExtents() });
  assert.equal(decodeLayerRecord(bytes, digestOf('another tar')), undefined);
});

test('a layer record with a right checksum and impossible rows is invalid', () => {
  const extents = new ExtentList();
  extents.push(newPackId(), 5, 10);
  const forged = (change: (bytes: Buffer) => void) => {
    const bytes = encodeLayerRecord({ diffId: DIFF_ID, extents });
    change(bytes);
    sha256(bytes.subarray(0, -32)).copy(bytes, bytes.length - 32);
    return decodeLayerRecord(bytes, DIFF_ID);
  };
  assert.ok(forged(() => undefined));
  const extentAt = 56 + 16;
  const changes: Record<string, (bytes: Buffer) => void> = {
    'tar length': (bytes) => bytes.writeUInt32LE(11, 40),
    'pack row': (bytes) => bytes.writeUInt32LE(1, extentAt),
    'pack count': (bytes) => bytes.writeUInt32LE(0xffffffff, 48),
    'extent count': (bytes) => bytes.writeUInt32LE(0xffffffff, 52),
    'offset above 2^53': (bytes) => bytes.fill(0xff, extentAt + 4, extentAt + 12),
    'empty extent': (bytes) => bytes.fill(0, extentAt + 12, extentAt + 20).fill(0, 40, 48),
  };
  for (const [what, change] of Object.entries(changes)) assert.equal(forged(change), undefined, what);
});

async function publish(paths: StorePaths) {
  const one = writePack(paths, [Buffer.alloc(100, 1)]).id;
  const two = writePack(paths, [Buffer.alloc(100, 2)]).id;
  const extents = new ExtentList();
  extents.push(one, 0, 50);
  extents.push(two, 40, 60);
  await writeLayerRecord(paths, { diffId: DIFF_ID, extents });
  return { one, two, extents };
}

test('a published layer is cached until something that it needs is gone', async (t) => {
  const paths = freshStore(t);
  assert.equal(readLayerRecord(paths, DIFF_ID), undefined);
  const { one, two, extents } = await publish(paths);
  const isCached = () => readLayerRecord(paths, DIFF_ID) !== undefined;
  assert.deepEqual(listed(readLayerRecord(paths, DIFF_ID)!.extents), listed(extents));
  assert.deepEqual(readdirSync(paths.layers).length, 1);

  markBad(paths, one, [{ offset: 50, lengthBytes: 50 }]);
  assert.ok(isCached(), 'bytes that it does not need may be bad');
  renameSync(packPath(paths, one), `${packPath(paths, one)}.away`);
  assert.equal(isCached(), false, 'a pack is gone');
  renameSync(`${packPath(paths, one)}.away`, packPath(paths, one));
  assert.ok(isCached());
  truncateSync(packPath(paths, two), 99);
  assert.equal(isCached(), false, 'a pack is too short');
  truncateSync(packPath(paths, two), 100);
  assert.ok(isCached());
  markBad(paths, two, [{ offset: 99, lengthBytes: 1 }]);
  assert.equal(isCached(), false, 'a byte of it proved false');
});

test('a damaged record file is invalid', async (t) => {
  const paths = freshStore(t);
  await publish(paths);
  const path = layerRecordPath(paths, DIFF_ID);
  const bytes = readFileSync(path);
  bytes[60]! ^= 1;
  writeFileSync(path, bytes);
  assert.equal(readLayerRecord(paths, DIFF_ID), undefined);
});

test('a layer whose packs cannot be synced is not published', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.alloc(100)]);
  const extents = new ExtentList();
  extents.push(id, 0, 100);
  unlinkSync(packPath(paths, id));
  await assert.rejects(writeLayerRecord(paths, { diffId: DIFF_ID, extents }), { code: 'store-broken' });
  assert.deepEqual(fs.readdirSync(paths.layers), []);
});

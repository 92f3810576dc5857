import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  deleteBlob,
  getBlob,
  type ImageRecord,
  listImageRecords,
  putBlob,
  readImageRecord,
  writeImageRecord,
} from '../../../src/store/image-record.js';
import { blobPath, imageRecordPath, type StorePaths } from '../../../src/store/paths.js';
import { digestOf, freshStore } from './support.js';

const RECORD: ImageRecord = {
  reference: 'registry.example/app:1',
  platform: 'linux/amd64',
  manifestDigest: digestOf('manifest'),
  manifestMediaType: 'application/vnd.oci.image.manifest.v1+json',
  configDigest: digestOf('config'),
  diffIds: [digestOf('tar 1'), digestOf('tar 2')],
  layers: ['1', '2'].map((name) => ({
    digest: digestOf(`blob ${name}`),
    mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
    sizeBytes: 12_345,
  })),
  createdMs: 1_700_000_000_000,
  lastUsedMs: 1_700_000_000_001,
};

async function storeWithBlobs(paths: StorePaths): Promise<StorePaths> {
  for (const text of ['manifest', 'config']) await putBlob(paths, digestOf(text), Buffer.from(text));
  return paths;
}

test('an image record is read as it was written', async (t) => {
  const paths = await storeWithBlobs(freshStore(t));
  assert.equal(readImageRecord(paths, RECORD.reference, RECORD.platform), undefined);
  await writeImageRecord(paths, RECORD);
  assert.deepEqual(readImageRecord(paths, RECORD.reference, RECORD.platform), RECORD);
  assert.equal(readImageRecord(paths, RECORD.reference, 'linux/arm64'), undefined);
  await writeImageRecord(paths, { ...RECORD, lastUsedMs: 1_800_000_000_000 });
  assert.equal(readImageRecord(paths, RECORD.reference, RECORD.platform)?.lastUsedMs, 1_800_000_000_000);
  assert.equal(readdirSync(paths.images).length, 1);
});

test('an image is not published before its manifest and config are stored', async (t) => {
  const paths = freshStore(t);
  await putBlob(paths, RECORD.manifestDigest, Buffer.from('manifest'));
  await assert.rejects(writeImageRecord(paths, RECORD), { code: 'store-broken' });
  assert.deepEqual(readdirSync(paths.images), []);
});

test('all valid records are listed in order, and nothing else', async (t) => {
  const paths = await storeWithBlobs(freshStore(t));
  const records = ['b:1', 'a:2', 'a:1'].map((reference) => ({ ...RECORD, reference }));
  for (const record of records) await writeImageRecord(paths, record);
  writeFileSync(join(paths.images, 'note.txt'), 'x');
  writeFileSync(`${imageRecordPath(paths, 'c', 'd')}.0011223344556677.tmp`, '{');
  writeFileSync(imageRecordPath(paths, 'c', 'd'), '{');
  assert.deepEqual(
    listImageRecords(paths).map(({ reference }) => reference),
    ['a:1', 'a:2', 'b:1'],
  );
});

test('a hostile record file counts as absent', async (t) => {
  const paths = await storeWithBlobs(freshStore(t));
  await writeImageRecord(paths, RECORD);
  const path = imageRecordPath(paths, RECORD.reference, RECORD.platform);
  const good = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  const [layer] = RECORD.layers;
  const bad: unknown[] = [
    null,
    [],
    'text',
    { ...good, version: 2 },
    { ...good, reference: 'another:1' },
    { ...good, platform: undefined },
    { ...good, manifestDigest: 'sha256:../../etc/passwd' },
    { ...good, configDigest: 7 },
    { ...good, manifestMediaType: '' },
    { ...good, manifestMediaType: 'x'.repeat(5000) },
    { ...good, diffIds: [RECORD.diffIds[0]] },
    { ...good, diffIds: [RECORD.diffIds[0], 'sha256:12'] },
    { ...good, diffIds: { length: 2 } },
    { ...good, layers: [layer, null] },
    { ...good, layers: [layer, { ...layer, sizeBytes: -1 }] },
    { ...good, layers: [layer, { ...layer, digest: 'x' }] },
    { ...good, diffIds: Array(1001).fill(RECORD.diffIds[0]), layers: Array(1001).fill(layer) },
    { ...good, createdMs: 1.5 },
    { ...good, lastUsedMs: '1' },
    { ...good, padding: 'x'.repeat(2 ** 20) },
  ];
  for (const value of bad) {
    writeFileSync(path, JSON.stringify(value));
    assert.equal(
      readImageRecord(paths, RECORD.reference, RECORD.platform),
      undefined,
      JSON.stringify(value).slice(0, 200),
    );
  }
  writeFileSync(path, JSON.stringify({ ...good, unknown: 'field' }));
  assert.deepEqual(readImageRecord(paths, RECORD.reference, RECORD.platform), RECORD);
});

test('a blob is stored, stored again, and deleted', async (t) => {
  const paths = freshStore(t);
  const digest = digestOf('bytes');
  assert.equal(getBlob(paths, digest), undefined);
  await Promise.all([
    putBlob(paths, digest, Buffer.from('bytes')),
    putBlob(paths, digest, Buffer.from('bytes')),
  ]);
  assert.equal(getBlob(paths, digest)?.toString(), 'bytes');
  assert.equal(readdirSync(paths.blobs).length, 1);
  await deleteBlob(paths, digest);
  await deleteBlob(paths, digest);
  assert.equal(getBlob(paths, digest), undefined);
});

test('a damaged blob is deleted and counts as absent', async (t) => {
  const paths = freshStore(t);
  const digest = digestOf('bytes');
  for (const damaged of ['byteS', '', 'bytes and more']) {
    writeFileSync(blobPath(paths, digest), damaged);
    assert.equal(getBlob(paths, digest), undefined);
    assert.equal(existsSync(blobPath(paths, digest)), false);
  }
  await putBlob(paths, digest, Buffer.from('bytes'));
  assert.equal(getBlob(paths, digest)?.toString(), 'bytes');
});

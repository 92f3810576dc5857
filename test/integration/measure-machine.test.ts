import assert from 'node:assert/strict';
import { readdirSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import { type MachineMeasurement, type MachineOptions, measureMachine } from '../../src/api/measure.js';
import { type Digest, parseDigest } from '../../src/format/digest.js';
import type { Compression } from '../../src/format/layer-format.js';
import type { MeasuredBlob } from '../../src/pool/messages.js';
import { largerImage } from '../support/file-fixtures.js';
import { DIALECT_LAYOUT, FIXTURE_LAYOUT, FORMATS_LAYOUT, LAYER_DIGEST } from '../support/fixture-layout.js';
import { addBlob, emptyLayout, fixtureCopy, readManifest } from '../support/layout.js';
import { flipByte } from '../support/packs.js';
import { failureOf } from '../support/pull.js';
import { skipUnlessMount, smallDisk } from '../support/small-disk.js';
import { startWorkers, zstdBomb } from '../support/streams.js';
import { temporaryDirectory } from '../support/temporary.js';

const MIB = 2 ** 20;
/** All tars of the fixtures' image. */
const TAR_BYTES = 1_505_280;

/** Measures, and fails if anything is left where the store would be. */
async function measure(
  t: TestContext,
  image: string,
  options: Partial<MachineOptions> = {},
): Promise<MachineMeasurement> {
  const store = temporaryDirectory(t);
  try {
    return await measureMachine(image, { store, workers: 2, ...options });
  } finally {
    assert.deepEqual(readdirSync(store), []);
  }
}

test('every format is decoded, as many bytes are hashed and written, by one thread and by all', async (t) => {
  const images: Array<[string, string, number]> = [
    [FIXTURE_LAYOUT, 'chunked-v1', TAR_BYTES],
    [FORMATS_LAYOUT, 'gzip', TAR_BYTES],
    [FORMATS_LAYOUT, 'zstd', TAR_BYTES],
    [FORMATS_LAYOUT, 'plain', TAR_BYTES],
    [DIALECT_LAYOUT, 'estargz', 1_527_296],
  ];
  for (const [layout, ref, tarBytes] of images) {
    const measured = await measure(t, `oci:${layout}:${ref}`);
    const blobBytes = readManifest(layout, ref).layers.reduce((sum, { size }) => sum + size, 0);
    assert.deepEqual([measured.tarBytes, measured.blobBytes], [tarBytes, blobBytes], ref);
    assert.equal(measured.isPartial, false);
    assert.ok(measured.decode.all.cpuMs > 0);
    for (const { one, all } of [measured.decode, measured.hash, measured.write]) {
      assert.deepEqual([one.threads, one.bytes, all.threads, all.bytes], [1, tarBytes, 2, 2 * tarBytes]);
      assert.ok(Math.min(one.wallMs, all.wallMs) > 0);
    }
  }
});

test('a store that is not there is not made, and one worker is measured once', async (t) => {
  const directory = temporaryDirectory(t);
  const store = join(directory, 'a', 'store');
  const { write } = await measureMachine(`oci:${FORMATS_LAYOUT}:plain`, { store, workers: 1 });
  assert.deepEqual(write.all, write.one);
  assert.deepEqual(readdirSync(directory), []);
});

test('an image that is not there, not in a layout or not whole is refused, and so is a damaged one', async (t) => {
  const layout = fixtureCopy(t);
  const codeOf = async (image: string) => (await failureOf(measure(t, image))).code;
  assert.equal(await codeOf('localhost:1/x:y'), 'option-malformed');
  assert.equal(await codeOf(`oci:${layout}/none`), 'image-not-found');
  assert.equal(await codeOf(`oci:${layout}:none`), 'image-not-found');
  const path = join(layout, 'blobs', LAYER_DIGEST.replace(':', '/'));
  // The magic number of the first frame.
  flipByte(path, 0);
  const damaged = await failureOf(measure(t, `oci:${layout}:chunked-v1`));
  assert.deepEqual([damaged.code, damaged.layer], ['metadata-malformed', LAYER_DIGEST]);
  rmSync(path);
  assert.equal(await codeOf(`oci:${layout}:chunked-v1`), 'blob-not-found');
});

test('a signal ends it in each part, and no file is left', async (t) => {
  const { layout } = await largerImage(24);
  const image = `oci:${layout}:larger`;
  assert.equal((await failureOf(measure(t, image, { signal: AbortSignal.abort() }))).code, 'interrupted');
  for (const ms of [100, 300]) {
    const signal = AbortSignal.timeout(ms);
    const ending = measure(t, image, { signal }).then(
      () => 'interrupted',
      ({ code }: { code: string }) => code,
    );
    assert.equal(await ending, 'interrupted');
  }
  const { pool } = await startWorkers(t);
  const directory = temporaryDirectory(t);
  const writing = pool.run({ task: 'measure-write', directory, bytes: 512 * MIB });
  await Promise.all([assert.rejects(writing), sleep(100).then(() => pool.destroy())]);
  assert.deepEqual(readdirSync(directory), []);
});

test('a full disk is told, and gets its space back', { skip: skipUnlessMount() }, async (t) => {
  const disk = smallDisk(t, 8 * MIB);
  const { layout } = await largerImage(24);
  const freeBefore = statfsSync(disk).bfree;
  const options = { store: join(disk, 'store'), workers: 1 };
  const error = await failureOf(measureMachine(`oci:${layout}:larger`, options));
  assert.deepEqual([error.code, error.exitCode], ['store-full', 7]);
  // As if another program had filled it meanwhile.
  const { pool } = await startWorkers(t);
  const writing = pool.run({ task: 'measure-write', directory: disk, bytes: 64 * MIB });
  assert.equal((await failureOf(writing)).code, 'store-full');
  assert.deepEqual(readdirSync(disk), []);
  assert.equal(statfsSync(disk).bfree, freeBefore);
});

/** A blob of a layout of its own. */
function blobOf(
  t: TestContext,
  bytes: Buffer,
  compression: Compression,
  isZstdChunked = false,
): MeasuredBlob {
  const layout = emptyLayout(t);
  const digest: Digest = parseDigest(addBlob(layout, bytes), 'blob');
  const url = pathToFileURL(join(layout, 'blobs', digest.replace(':', '/'))).href;
  return { url, digest, compression, isZstdChunked };
}

test('what decodes to more than is measured ends there, whatever it is', async (t) => {
  const { pool } = await startWorkers(t);
  const [zeros, maxBytes] = [Buffer.alloc(64 * MIB), 2 * MIB];
  const frames = Buffer.concat(Array.from({ length: 64 }, () => zstdBomb(8)));
  const blobs = [
    blobOf(t, gzipSync(zeros), 'gzip'),
    blobOf(t, zstdBomb(512), 'zstd'),
    blobOf(t, frames, 'zstd', true),
    blobOf(t, zeros, 'tar'),
  ];
  for (const blob of blobs) {
    const { bytes, blobBytes, isPartial } = await pool.run({
      task: 'measure-decode',
      blobs: [blob],
      maxBytes,
    });
    assert.ok(isPartial && bytes <= maxBytes + 32 * MIB, `${blob.compression}: ${bytes} of ${blobBytes}`);
  }
  // A frame that decodes to nothing.
  const skipped = Buffer.alloc(8 + 4 * MIB);
  skipped.set([0x50, 0x2a, 0x4d, 0x18]);
  skipped.writeUInt32LE(4 * MIB, 4);
  const empty = blobOf(t, skipped, 'zstd', true);
  const { bytes, isPartial } = await pool.run({ task: 'measure-decode', blobs: [empty], maxBytes });
  assert.deepEqual([bytes, isPartial], [0, true]);
});

test('a layer that says it is chunked and is not is decoded as a stream', async (t) => {
  const { pool } = await startWorkers(t);
  const tar = Buffer.alloc(40 * MIB, 'zpull');
  const blobs = [blobOf(t, await compress(tar), 'zstd', true), blobOf(t, gzipSync(tar), 'gzip', true)];
  const task = { task: 'measure-decode', blobs, maxBytes: 1e9 } as const;
  const { bytes, isPartial } = await pool.run(task);
  assert.deepEqual([bytes, isPartial], [2 * tar.length, false]);
});

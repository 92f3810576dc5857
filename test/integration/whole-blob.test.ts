import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import type { Digest } from '../../src/format/digest.js';
import { formatBytes } from '../../src/format/figures.js';
import type { Compression } from '../../src/format/layer-format.js';
import { CounterReader, createDecodedRoom } from '../../src/pool/shared-memory.js';
import type { WorkerPool } from '../../src/pool/worker-pool.js';
import { ExtentList } from '../../src/store/extents.js';
import { lookUp } from '../../src/store/look-up.js';
import { removePack, sealPack } from '../../src/store/pack-files.js';
import { type PackId, storePaths } from '../../src/store/paths.js';
import { FILE } from '../support/file-fixtures.js';
import { noise, tarOf } from '../support/layout.js';
import { packFiles } from '../support/packs.js';
import {
  decodeBlob,
  fetchOpaque,
  lookUpBlobRuns,
  readExtents,
  serveBlob,
  startWorkers,
  zstdBomb,
} from '../support/streams.js';
import { digestOf, sha256 } from '../unit/store/support.js';

const SMALL = noise(1, 30_000);
const LARGE = noise(2, 5_000_000);
const TEXT = Buffer.alloc(3_000_000, 'some text ');
const NOTHING = Buffer.alloc(6 * 2 ** 20);
const TAR = tarOf({
  small: SMALL,
  empty: Buffer.alloc(0),
  large: LARGE,
  text: TEXT,
  zeros: NOTHING,
  again: SMALL,
});

const GZIP = gzipSync(TAR, { level: 1 });

const COMPRESSIONS: ReadonlyArray<readonly [Compression, (tar: Buffer) => Buffer | Promise<Buffer>]> = [
  ['gzip', () => GZIP],
  ['zstd', (tar) => compress(tar, 1)],
  ['tar', (tar) => tar],
];

/** Where these contents lie in the store's packs: null for one that no pack has. */
function find(store: string, contents: readonly Buffer[]) {
  const request = {
    digests: Buffer.concat(contents.map(sha256)),
    sizeBytes: Float64Array.from(contents, ({ length }) => length),
  };
  const { packs, found } = lookUp(storePaths(store), { digests: [request], blobs: [] });
  const { pack, offset } = found[0]!;
  return contents.map((_, i) => (pack[i]! < 0 ? null : { pack: packs[pack[i]!]!, offset: offset[i]! }));
}

for (const [compression, pack] of COMPRESSIONS) {
  test(`a blob of ${compression} is fetched in ranges and decoded, and its contents are found later`, async (t) => {
    const bytes = await pack(TAR);
    const blob = await serveBlob(t, bytes);
    const { store, pool, counters } = await startWorkers(t, undefined, 2);
    const raw = await fetchOpaque(pool, blob, 1_000_003);
    assert.ok(readExtents(store, raw).equals(bytes));
    assert.equal(await foundRaw(pool, store, blob.digest, bytes), bytes.length);
    assert.equal(new CounterReader(counters, 'received').total(), bytes.length);
    assert.equal(new CounterReader(counters, 'written').total(), 0);
    const { result, extents } = await decodeBlob(pool, blob, compression, raw);
    const decoded = result.pack!;
    assert.deepEqual(result, { blobDigest: blob.digest, tarBytes: TAR.length, pack: decoded, compression });
    // One unbroken run from the beginning of its pack.
    assert.deepEqual([extents.count, extents.packAt(0), extents.offsetAt(0)], [1, decoded, 0]);
    assert.ok(readExtents(store, extents).equals(TAR));
    assert.equal(new CounterReader(counters, 'written').total(), TAR.length);
    assert.deepEqual(find(store, [LARGE]), [null], 'of an unsealed pack only pieces are believed');
    await sealPack(storePaths(store), decoded);
    const starts = ['small', 'large', 'text', 'zeros'].map((name) => TAR.indexOf(`${name}\0`) + 512);
    const expected = starts.map((offset) => ({ pack: decoded, offset }));
    assert.deepEqual(find(store, [SMALL, LARGE, TEXT, NOTHING]), expected);
  });

  test(`bytes of a ${compression} blob that change on their way show in its digest, and what follows is hashed`, async (t) => {
    const bytes = await pack(TAR);
    const flipAt = bytes.length - 100;
    const faults = [{ match: { path: '/blobs/' }, action: { flipByteAt: flipAt } }];
    const blob = await serveBlob(t, bytes, { faults });
    const pool = await sharedPool();
    const raw = await fetchOpaque(pool, blob, 4_000_000);
    const { result } = await decodeBlob(pool, blob, compression, raw);
    const flipped = Buffer.from(bytes);
    flipped[flipAt]! ^= 0xff;
    assert.equal(result.blobDigest, digestOf(flipped));
  });
}

let shared: ReturnType<typeof startWorkers> | undefined;

/** Threads for blobs that have nothing to do with each other. */
function sharedPool(): Promise<WorkerPool> {
  shared ??= startWorkers(FILE);
  return shared.then(({ pool }) => pool);
}

/** What comes of a blob that says it is compressed so. */
async function broken(t: TestContext, compression: Compression, bytes: Buffer) {
  const blob = await serveBlob(t, bytes);
  const pool = await sharedPool();
  const raw = await fetchOpaque(pool, blob, 2_000_000);
  const { result, extents } = await decodeBlob(pool, blob, compression, raw);
  assert.equal(result.blobDigest, blob.digest, 'the bytes are what the manifest names');
  assert.equal(result.tarBytes, extents.lengthBytes);
  return { ...result, bytes: raw.lengthBytes };
}

test('a layer that is cut off is told with its place, and what came before stands', async (t) => {
  const cut = await broken(t, 'gzip', GZIP.subarray(0, -3_000));
  assert.match(cut.problem?.message ?? '', /cut off/);
  assert.equal(cut.problem?.blobAt, GZIP.length - 3_000);
  assert.ok(cut.tarBytes > 10_000_000);
  const zstd = await compress(TAR, 1);
  const { problem } = await broken(t, 'zstd', zstd.subarray(0, -3_000));
  assert.match(problem?.message ?? '', /cut off/);
});

test('what is no tar that we know is taken as it is: the DiffID says whether it should be', async (t) => {
  for (const bytes of [TAR.subarray(0, 3_000_000), LARGE]) {
    const { problem, tarBytes } = await broken(t, 'gzip', gzipSync(bytes, { level: 1 }));
    assert.deepEqual([problem, tarBytes], [undefined, bytes.length]);
  }
});

test('a blob that decodes to more than it may is decoded no further, whoever decodes it', async (t) => {
  // 8 GiB, and 13 MB in frames that are decoded at once.
  const frames = Buffer.concat(Array.from({ length: 10 }, () => zstdBomb(10)));
  for (const [bytes, freeBytes] of [
    [zstdBomb(2 ** 16), 2 ** 20],
    [frames, 2 ** 20],
  ] as const) {
    const blob = await serveBlob(t, bytes);
    const pool = await sharedPool();
    const raw = await fetchOpaque(pool, blob, 2_000_000);
    const { result } = await decodeBlob(pool, blob, 'zstd', raw, undefined, createDecodedRoom(freeBytes));
    const mostBytes = bytes.length * 1032 + freeBytes;
    assert.equal(
      result.problem?.message,
      `decodes to more than ${formatBytes(mostBytes)}, the limit for its length`,
    );
    assert.match(result.problem?.hint ?? '', /denser than 1032 to 1/);
    assert.ok(result.tarBytes <= mostBytes);
    assert.equal(result.blobDigest, blob.digest);
  }
});

test('layers that are decoded at the same time share what they may decode to beyond their lengths', async (t) => {
  const freeBytes = 50e6;
  const room = createDecodedRoom(freeBytes);
  const { pool } = await startWorkers(t);
  const bytes = zstdBomb(2 ** 13);
  const blob = await serveBlob(t, bytes);
  const raw = await fetchOpaque(pool, blob, 2_000_000);
  const decoded = await Promise.all(
    [1, 2].map(async () => {
      const { result } = await decodeBlob(pool, blob, 'zstd', raw, undefined, room);
      assert.match(result.problem?.message ?? '', /the limit for its length/);
      return result.tarBytes - bytes.length * 1032;
    }),
  );
  const tookBytes = decoded.reduce((sum, bytes) => sum + Math.max(0, bytes), 0);
  assert.ok(tookBytes <= freeBytes, `${tookBytes} bytes`);
});

test('raw bytes that are gone have no digest', async (t) => {
  const blob = await serveBlob(t, GZIP);
  const { store, pool } = await startWorkers(t);
  const raw = await fetchOpaque(pool, blob, 4_000_000);
  for (const pack of raw.packs) await removePack(storePaths(store), pack);
  const { result } = await decodeBlob(pool, blob, 'gzip', raw);
  assert.equal(result.blobDigest, null);
  assert.equal(result.problem, undefined);
});

/** Raw pieces of a blob that a look-up in this store finds, checked against its bytes; how many bytes they are. */
async function foundRaw(pool: WorkerPool, store: string, digest: Digest, bytes: Buffer): Promise<number> {
  const { packs, opaque: raw } = await lookUpBlobRuns(pool, digest);
  assert.equal(raw.length, 1);
  const all = raw[0]!.map(({ blobStart, blobEnd, pack, packOffset }) => {
    const extents = new ExtentList();
    extents.push(packs[pack] as PackId, packOffset, blobEnd - blobStart);
    assert.ok(readExtents(store, extents).equals(bytes.subarray(blobStart, blobEnd)));
    return extents.lengthBytes;
  });
  return all.reduce((sum, length) => sum + length, 0);
}

test('what a fetch received before it failed is found by the next pull', async (t) => {
  const bytes = noise(4, 5_000_000);
  const faults = [
    { match: { path: '/blobs/', nth: 1 as const }, action: { closeAfterBytes: 3_000_000 } },
    { match: { path: '/blobs/' }, action: { status: 404 } },
  ];
  const blob = await serveBlob(t, bytes, { faults });
  const { store, pool } = await startWorkers(t);
  await assert.rejects(fetchOpaque(pool, blob, bytes.length), { code: 'blob-not-found' });
  await pool.destroy();
  const next = await startWorkers(t, store);
  assert.equal(await foundRaw(next.pool, store, blob.digest, bytes), 3_000_000);
});

test('what a fetch noted before its thread was ended is found by the next pull', async (t) => {
  const bytes = noise(5, 8_000_000);
  const blob = await serveBlob(t, bytes, { rateBytes: 4e6 });
  const { store, pool, counters } = await startWorkers(t);
  const fetching = assert.rejects(fetchOpaque(pool, blob, bytes.length));
  const received = new CounterReader(counters, 'received');
  while (received.total() < 3_000_000) await new Promise((resolve) => setTimeout(resolve, 5));
  await pool.destroy();
  await fetching;
  const next = await startWorkers(t, store);
  const found = await foundRaw(next.pool, store, blob.digest, bytes);
  // Received, less the last mebibyte at most.
  assert.ok(found >= 3_000_000 - 2 ** 20 && found < bytes.length, `${found} bytes`);
});

test('all ranges of a blob that one thread fetches go to one pack', async (t) => {
  const blob = await serveBlob(t, noise(8, 100_000));
  const { store, pool, threads } = await startWorkers(t);
  for (let i = 0; i < 3; i++) await fetchOpaque(pool, blob, 10_000);
  assert.ok(packFiles(store, '.pack').length <= threads);
});

test('each blob has raw packs of its own, which can go when its layer is proven', async (t) => {
  const one = await serveBlob(t, noise(6, 2_000_000));
  const two = await serveBlob(t, noise(7, 2_000_000));
  const { store, pool } = await startWorkers(t);
  const [first, second] = await Promise.all([
    fetchOpaque(pool, one, 500_000),
    fetchOpaque(pool, two, 500_000),
  ]);
  const third = await fetchOpaque(pool, one, 500_000);
  const packs = new Set([...first.packs, ...second.packs, ...third.packs]);
  for (const pack of second.packs) assert.ok(!first.packs.includes(pack) && !third.packs.includes(pack));
  assert.equal(packFiles(store, '.pack').length, packs.size);
  for (const pack of new Set([...first.packs, ...third.packs])) await removePack(storePaths(store), pack);
  assert.equal(packFiles(store, '').length, 2 * second.packs.length);
  assert.ok(readExtents(store, second).equals(noise(7, 2_000_000)));
});

test('a blob whose raw packs another process has removed is fetched to new ones', async (t) => {
  const bytes = noise(9, 300_000);
  const blob = await serveBlob(t, bytes);
  const { store, pool, threads } = await startWorkers(t);
  const packs = new Set((await fetchOpaque(pool, blob, 50_000)).packs);
  for (const pack of packs) await removePack(storePaths(store), pack);
  const again = await fetchOpaque(pool, blob, 50_000);
  assert.ok(readExtents(store, again).equals(bytes));
  assert.ok(packFiles(store, '.pack').length <= threads);
});

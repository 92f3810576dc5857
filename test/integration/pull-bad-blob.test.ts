import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import type { FaultRule } from '../../src/sandbox/faults.js';
import { addBlob, type DescriptorJson, emptyLayout, nameImage, noise, tarOf } from '../support/layout.js';
import { packFiles } from '../support/packs.js';
import {
  assertProven,
  failureOf,
  holdsLayer,
  layerAsks,
  listedImages,
  pull,
  warnings,
} from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';

const TAR = tarOf({ one: noise(1, 150_000), text: Buffer.alloc(30_000, 'a line\n'), two: noise(2, 90_000) });
const GZIP = gzipSync(TAR);
const ZSTD = await compress(TAR, 3);
const BLOBS = { gzip: GZIP, zstd: ZSTD, tar: TAR } as const;

type Compression = keyof typeof BLOBS;

/** An image of this layer, which goes by another tar's DiffID if it is told to. */
async function imageOf(
  t: TestContext,
  blob: Buffer,
  compression: Compression,
  more: { tar?: Buffer; faults?: readonly FaultRule[] } = {},
) {
  const { tar = TAR, faults = [] } = more;
  const layout = emptyLayout(t);
  const mediaType = compression === 'tar' ? OCI_LAYER : `${OCI_LAYER}+${compression}`;
  const layer: DescriptorJson = { mediaType, digest: addBlob(layout, blob), size: blob.length };
  nameImage(layout, 'it', [layer], [digestOf(tar)]);
  const registry = await startSandbox(t, { layout, faults });
  return { registry, layer, store: temporaryDirectory(t), image: `${registry.host}/x:it` };
}

/** The failure of a pull, with exit code 6; nothing is in the store then that anybody could take for the layer. */
async function integrityFailure(served: Awaited<ReturnType<typeof imageOf>>, tar = TAR) {
  const { image, store, layer } = served;
  const error = await failureOf(pull(image, { store }));
  assert.deepEqual([error.exitCode, error.layer], [6, layer.digest], error.message);
  assert.ok(error.message.includes(layer.digest), error.message);
  assert.ok(error.hint !== undefined);
  assert.deepEqual(listedImages(store), []);
  assert.ok(!holdsLayer(store, digestOf(tar)));
  return error;
}

for (const compression of ['gzip', 'zstd', 'tar'] as const) {
  const blob = BLOBS[compression];
  const middle = blob.length >> 1;

  test(`a ${compression} blob that is always wrong is fetched twice and refused`, async (t) => {
    const faults: FaultRule[] = [{ match: { path: digestOf(blob) }, action: { flipByteAt: middle } }];
    const served = await imageOf(t, blob, compression, { faults });
    const error = await integrityFailure(served);
    assert.equal(error.code, 'digest-mismatch');
    assert.match(error.message, /got sha256:[0-9a-f]{64}, twice/);
    assert.deepEqual(
      layerAsks(served.registry).map(({ start, end }) => [start, end]),
      [
        [0, blob.length],
        [0, blob.length],
      ],
    );
    assert.deepEqual(packFiles(served.store, '.idx'), [], 'wrong bytes are kept for nobody');
  });

  test(`a ${compression} blob that is wrong once is fetched once more, with a warning`, async (t) => {
    const faults: FaultRule[] = [{ match: { path: digestOf(blob), nth: 1 }, action: { flipByteAt: middle } }];
    const { image, store, registry, layer } = await imageOf(t, blob, compression, { faults });
    const { result, events } = await pull(image, { store });
    assertProven(result);
    const told = warnings(events);
    assert.equal(told.length, 1);
    assert.ok(told[0]!.includes(layer.digest) && told[0]!.endsWith('fetching it again'), told[0]);
    assert.equal(layerAsks(registry).length, 2);
    assert.deepEqual([result.requests, result.fetchedBytes, result.misses], [2, 2 * blob.length, 0]);
  });

  test(`a ${compression} layer with a wrong DiffID is refused with an error that names both digests`, async (t) => {
    const other = tarOf({ other: noise(3, 1000) });
    const served = await imageOf(t, blob, compression, { tar: other });
    const error = await integrityFailure(served, other);
    assert.equal(error.code, 'digest-mismatch');
    assert.ok(error.message.includes(`expected ${digestOf(other)}, got ${digestOf(TAR)}`), error.message);
    assert.equal(layerAsks(served.registry).length, 1, 'the blob is right: nothing is fetched again');
  });
}

/** A bit is wrong, in the middle. */
function flipped(blob: Buffer): Buffer {
  const copy = Buffer.from(blob);
  copy[blob.length >> 1]! ^= 0x10;
  return copy;
}

const GARBAGE = noise(7, 5000);
const GZIP_GARBAGE = Buffer.concat([GZIP, GARBAGE]);
const ZSTD_GARBAGE = Buffer.concat([ZSTD, GARBAGE]);

const BAD: ReadonlyArray<
  readonly [what: string, blob: Buffer, as: Compression, says: RegExp, at: readonly [number, number]]
> = [
  [
    'a gzip stream that is cut off',
    GZIP.subarray(0, -700),
    'gzip',
    /cut off/,
    [GZIP.length - 700, GZIP.length],
  ],
  [
    'a gzip stream without its last byte',
    GZIP.subarray(0, -1),
    'gzip',
    /cut off/,
    [GZIP.length - 1, GZIP.length],
  ],
  [
    'a zstd frame that is cut off',
    ZSTD.subarray(0, -700),
    'zstd',
    /cut off/,
    [ZSTD.length - 700, ZSTD.length],
  ],
  ['garbage behind gzip', GZIP_GARBAGE, 'gzip', /5000 bytes after/, [GZIP.length, GZIP.length]],
  ['garbage behind zstd', ZSTD_GARBAGE, 'zstd', /no zstd frames/, [ZSTD.length, ZSTD_GARBAGE.length]],
  ['a gzip layer of no bytes', Buffer.alloc(0), 'gzip', /is empty/, [0, 0]],
  // Where within a block of 1 MiB gzip data go wrong Node does not tell.
  ['a gzip stream with a wrong bit in it', flipped(GZIP), 'gzip', /cannot be decoded/, [0, GZIP.length]],
];

for (const [what, blob, compression, says, [from, to]] of BAD) {
  test(`${what} with the right digest is refused with an error that names the byte`, async (t) => {
    const served = await imageOf(t, blob, compression);
    const error = await integrityFailure(served);
    assert.equal(error.code, 'metadata-malformed', error.message);
    assert.match(error.message, says);
    const [, at] = /at or after byte (\d+) of the blob$/.exec(error.message) ?? [];
    assert.ok(Number(at) >= from && Number(at) <= to, `${error.message}: from ${from} to ${to}`);
    assert.equal(layerAsks(served.registry).length, blob.length > 0 ? 1 : 0, 'nothing is fetched again');
    assert.deepEqual(packFiles(served.store, '.idx'), []);
  });
}

test('a blob that decodes to another tar than the DiffID states is refused', async (t) => {
  const cases: ReadonlyArray<readonly [what: string, blob: Buffer, as: Compression]> = [
    ['a zstd frame without checksum that has a wrong bit', flipped(ZSTD), 'zstd'],
    ['a tar that is cut off', TAR.subarray(0, 100_000), 'tar'],
    ['a gzip of a tar that is cut off', gzipSync(TAR.subarray(0, 1000)), 'gzip'],
    ['a gzip of something else than a tar', gzipSync(noise(5, 3000)), 'gzip'],
  ];
  for (const [what, blob, compression] of cases) {
    const error = await integrityFailure(await imageOf(t, blob, compression));
    assert.equal(error.code, 'digest-mismatch', what);
    assert.ok(error.message.includes(`expected ${digestOf(TAR)}, got sha256:`), error.message);
  }
});

/** A tar's record. */
const RECORD_BYTES = 10_240;

test('zeros that the writer of an opaque layer dropped are restored where the DiffID then matches', async (t) => {
  const missing = RECORD_BYTES - (TAR.length % RECORD_BYTES);
  const padded = Buffer.concat([TAR, Buffer.alloc(missing)]);
  const longer = Buffer.concat([padded, Buffer.alloc(RECORD_BYTES)]);
  for (const compression of ['gzip', 'zstd', 'tar'] as const) {
    const blob = BLOBS[compression];
    const good = await imageOf(t, blob, compression, { tar: padded });
    const { result } = await pull(good.image, { store: good.store });
    assert.equal(result.layers[0]!.tarBytes, padded.length);
    assertProven(result);
    const bad = await imageOf(t, blob, compression, { tar: longer });
    assert.equal((await integrityFailure(bad, longer)).code, 'digest-mismatch');
  }
});

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { type TestContext, test } from 'node:test';
import * as zlib from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import { copyImage } from '../../src/api/copy.js';
import { setEnvironment } from '../support/environment.js';
import {
  addBlob,
  type DescriptorJson,
  emptyLayout,
  nameImage,
  noise,
  readBlob,
  readConfig,
  readManifest,
  tarOf,
  writeTars,
} from '../support/layout.js';
import { skipUnless } from '../support/programs.js';
import { assertProven, failureOf, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const TYPE = 'application/vnd.oci.image.layer.v1.tar';
const SUFFIXES = { tar: '', gzip: '+gzip', zstd: '+zstd' } as const;
type Compression = keyof typeof SUFFIXES;

const tarOfOne = (seed: number) => tarOf({ one: noise(seed, 3000), two: Buffer.alloc(20_000, `${seed}`) });

/** Where an image of these blobs, whose tars are these, is served. */
async function serve(
  t: TestContext,
  layers: ReadonlyArray<{ readonly tar: Buffer; readonly blob: Buffer; readonly mediaType: string }>,
) {
  const layout = emptyLayout(t);
  const descriptors = layers.map(({ blob, mediaType }) => ({
    mediaType,
    digest: addBlob(layout, blob),
    size: blob.length,
  }));
  const diffIds = layers.map(({ tar }) => digestOf(tar));
  nameImage(layout, 'it', descriptors, diffIds);
  const registry = await startSandbox(t, { layout });
  return { layout, descriptors, registry, image: `${registry.host}/x:it` };
}

/** An image of one such layer, and how to pull it. */
async function serveOne(t: TestContext, tar: Buffer, blob: Buffer, mediaType = `${TYPE}+gzip`) {
  const served = await serve(t, [{ tar, blob, mediaType }]);
  const options = { store: temporaryDirectory(t), platform: 'linux/amd64' };
  return { ...served, take: () => pull(served.image, options) };
}

test('the first bytes of a blob decide what it is, whatever its media type says', async (t) => {
  const stated = ['tar', 'gzip', 'zstd'] as const;
  const layers = await Promise.all(
    stated.flatMap((type, row) =>
      stated.map(async (actual, column) => {
        const tar = tarOfOne(1 + row * 3 + column);
        const blobs = { tar, gzip: zlib.gzipSync(tar), zstd: await compress(tar, 1) };
        return { type, actual, tar, blob: blobs[actual], mediaType: `${TYPE}${SUFFIXES[type]}` };
      }),
    ),
  );
  const { image, descriptors, layout } = await serve(t, layers);
  const { result, events } = await pull(image, { store: temporaryDirectory(t), platform: 'linux/amd64' });
  await assertProven(result);
  assert.deepEqual(
    result.layers.map(({ format }) => format),
    layers.map(({ actual }) => actual),
  );
  const told = warnings(events);
  for (const [row, { type, actual }] of layers.entries()) {
    const one = told.filter((message) => message.includes(descriptors[row]!.digest));
    const wrong = `its media type says ${type}, but its bytes are ${actual}`;
    assert.equal(one.filter((message) => message.includes(wrong)).length, type === actual ? 0 : 1, wrong);
  }
  assert.equal(told.length, 6);
  const path = temporaryDirectory(t);
  await copyImage(image, { destination: { kind: 'layout', path } });
  for (const { digest } of descriptors) assert.ok(readBlob(path, digest).equals(readBlob(layout, digest)));
});

test('what is neither is taken as what its media type says, and fails', async (t) => {
  const tar = tarOfOne(1);
  const xz = Buffer.concat([Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]), noise(1, 1000)]);
  const cases: ReadonlyArray<readonly [Buffer, Compression, RegExp, number]> = [
    [noise(1, 1000), 'gzip', /is no gzip data/, 6],
    [noise(1, 1000), 'zstd', /is no zstd data/, 6],
    [noise(1, 1000), 'tar', /DiffID/, 6],
    [Buffer.from([0x1f, 0x8b]), 'gzip', /cut off/, 6],
    [xz, 'gzip', /is compressed by xz, which is not supported/, 8],
    [Buffer.concat([Buffer.from('BZh9'), noise(1, 1000)]), 'tar', /compressed by bzip2/, 8],
  ];
  for (const [blob, type, message, exitCode] of cases) {
    const { take, descriptors } = await serveOne(t, tar, blob, `${TYPE}${SUFFIXES[type]}`);
    const error = await failureOf(take());
    assert.match(error.message, message);
    assert.deepEqual([error.exitCode, error.layer], [exitCode, descriptors[0]!.digest]);
    // Options that force a compression are those of newer skopeos only.
    if (exitCode === 8) assert.match(error.hint, /skopeo copy docker:\/\/IMAGE docker-archive:FILE/);
    assert.ok(error.message.includes(descriptors[0]!.digest) || error.message.includes(digestOf(tar)));
  }
});

test('a tar whose first file is named like gzip is a tar', async (t) => {
  const tar = tarOf({ '\u001f': Buffer.from('x') });
  tar[1] = 0x8b;
  tar[2] = 8;
  const sum = tar
    .subarray(0, 512)
    .reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 32 : byte), 0);
  tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  const { result, events } = await (await serveOne(t, tar, tar, TYPE)).take();
  assert.deepEqual([result.layers[0]!.format, warnings(events)], ['tar', []]);
});

test('a layer of no bytes, whose DiffID says that, is a tar of nothing', async (t) => {
  const nothing = Buffer.alloc(0);
  const { result } = await (await serveOne(t, nothing, nothing)).take();
  assert.deepEqual([result.layers[0]!.tarBytes, result.layers[0]!.format], [0, 'tar']);
});

const CHUNKED = [
  ['zstd:chunked', 'zstd:chunked', 'gzip', 'zstd'],
  ['zstd:chunked', 'zstd:chunked', 'tar', 'zstd'],
  ['estargz', 'estargz', 'zstd', 'gzip'],
  ['estargz', 'estargz', 'tar', 'gzip'],
] as const;

for (const [written, format, type, actual] of CHUNKED) {
  test(`the table of contents of a layer that is ${written} is used under a media type of ${type}`, async (t) => {
    const layout = emptyLayout(t);
    await writeTars(t, layout, 'it', [tarOf({ a: noise(1, 100_000), b: noise(2, 100_000) })], written);
    const manifest = readManifest(layout, 'it');
    const layers = manifest.layers.map((layer) => ({ ...layer, mediaType: `${TYPE}${SUFFIXES[type]}` }));
    nameImage(layout, 'it', layers, readConfig(layout, manifest).rootfs.diff_ids);
    const { host } = await startSandbox(t, { layout });
    const { result, events } = await pull(`${host}/x:it`, {
      store: temporaryDirectory(t),
      platform: 'linux/amd64',
    });
    await assertProven(result);
    assert.equal(result.layers[0]!.format, format);
    assert.deepEqual(warnings(events), [
      `layer ${layers[0]!.digest}: its media type says ${type}, but its bytes are ${actual}; they are decoded as ${actual}`,
    ]);
  });
}

test('metadata that a layer had before it was compressed anew costs a warning', async (t) => {
  const layout = emptyLayout(t);
  const tar = tarOf({ a: noise(1, 100_000) });
  await writeTars(t, layout, 'it', [tar]);
  const { annotations = {} } = readManifest(layout, 'it').layers[0]!;
  const blob = Buffer.concat([zlib.gzipSync(tar), Buffer.alloc(100_000)]);
  const layer: DescriptorJson = {
    mediaType: `${TYPE}+gzip`,
    digest: addBlob(layout, blob),
    size: blob.length,
    annotations,
  };
  nameImage(layout, 'it', [layer], [digestOf(tar)]);
  const { host } = await startSandbox(t, { layout });
  const { result, events } = await pull(`${host}/x:it`, {
    store: temporaryDirectory(t),
    platform: 'linux/amd64',
  });
  assert.equal(result.layers[0]!.format, 'gzip');
  assert.match(warnings(events).join(), /pulling the full layer instead/);
});

const GZIP = zlib.gzipSync(tarOfOne(1));

test('bytes behind gzip are named with their place', async (t) => {
  const tar = tarOfOne(1);
  const random = noise(5, 3_000_000);
  const at = GZIP.length;
  const cases: ReadonlyArray<readonly [Buffer, string, number]> = [
    [Buffer.from('\n'), '1 byte after its gzip data that are neither gzip nor padding (0a)', at],
    [
      Buffer.from('hello garbage'),
      '13 bytes after its gzip data that are neither gzip nor padding (68 65 6c 6c 6f 20 67 61 …)',
      at,
    ],
    [Buffer.from([0x1f]), '1 byte after its gzip data that are neither gzip nor padding (1f)', at],
    [Buffer.from([0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 0]), '10 bytes after its gzip data', at],
    [Buffer.concat([Buffer.alloc(700), Buffer.from('x')]), '1 byte after its gzip data', at + 700],
    [Buffer.concat([Buffer.from('x'), random]), `${random.length + 1} bytes after its gzip data`, at],
  ];
  for (const [behind, told, blobAt] of cases) {
    const { take, descriptors } = await serveOne(t, tar, Buffer.concat([GZIP, behind]));
    const error = await failureOf(take());
    assert.deepEqual([error.exitCode, error.layer], [6, descriptors[0]!.digest]);
    assert.ok(error.message.includes(`layer ${descriptors[0]!.digest} (gzip) has ${told}`), error.message);
    assert.match(error.message, new RegExp(`, at or after byte ${blobAt} of the blob$`));
    assert.match(error.hint, /appended/);
  }
  const { take } = await serveOne(t, tar, Buffer.concat([GZIP, Buffer.alloc(700)]));
  assert.deepEqual(warnings((await take()).events), []);
});

test('bytes after gzip data of several members are reported with their offset', async (t) => {
  const tar = tarOf({ noise: noise(1, 2_500_000), zeros: Buffer.alloc(1_000_000), more: noise(2, 500_000) });
  const members = [0, 700_001, 2_000_000].map((start, row, starts) =>
    zlib.gzipSync(tar.subarray(start, starts[row + 1]), { level: 1 }),
  );
  const blob = Buffer.concat([...members, Buffer.from('\r\n')]);
  const error = await failureOf((await serveOne(t, tar, blob)).take());
  assert.match(
    error.message,
    new RegExp(`2 bytes after .* \\(0d 0a\\), at or after byte ${blob.length - 2} of`),
  );
});

test('gzip data that end within a member are cut off, whatever is behind zeros before', async (t) => {
  for (const blob of [
    GZIP.subarray(0, -3),
    GZIP.subarray(0, -100),
    Buffer.concat([GZIP, GZIP.subarray(0, 100)]),
  ]) {
    const { take } = await serveOne(t, tarOfOne(1), blob);
    const error = await failureOf(take());
    assert.equal(error.exitCode, 6);
    assert.match(error.message, new RegExp(`cut off.*, at or after byte ${blob.length} of`));
  }
});

/** What `zstd --long=31` makes of these bytes. */
function zstdLong(input: Buffer): Buffer {
  return execFileSync('zstd', ['-1', '--long=31', '-c'], {
    input,
    maxBuffer: 2 ** 28,
    stdio: ['pipe', 'pipe', 'ignore'],
  });
}

/** More than one decoder call yields, so that the window counts. */
const LARGE = tarOf({ a: noise(1, 500_000), zeros: Buffer.alloc(33 * 2 ** 20), b: noise(1, 500_000) });

test('zstd --long=31 is decoded by what is there', { skip: skipUnless('zstd') }, async (t) => {
  const { take } = await serveOne(t, LARGE, zstdLong(LARGE), `${TYPE}+zstd`);
  const { result, events } = await take();
  await assertProven(result);
  assert.deepEqual(warnings(events), []);
});

test('without the program zstd, --long=31 is decoded where no window is needed, else what helps is named', {
  skip: skipUnless('zstd'),
}, async (t) => {
  const small = tarOfOne(1);
  const blobs = [zstdLong(small), zstdLong(LARGE)] as const;
  setEnvironment(t, { PATH: '' });
  await assertProven((await (await serveOne(t, small, blobs[0], `${TYPE}+zstd`)).take()).result);
  const { take } = await serveOne(t, LARGE, blobs[1], `${TYPE}+zstd`);
  if ('createZstdDecompress' in zlib) return assertProven((await take()).result);
  const error = await failureOf(take());
  assert.deepEqual([error.code, error.exitCode], ['unsupported', 8]);
  assert.match(error.message, /needs a window of 2048 MiB/);
  assert.match(error.hint, /install the program zstd, or run zpull with Node 22\.15 or later/);
});

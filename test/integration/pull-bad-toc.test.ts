import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { crc32 } from 'node:zlib';
import { compress, decompress } from '@mongodb-js/zstd';
import { digestBytes, parseDigest } from '../../src/format/digest.js';
import { compressText, OLD_MAGIC, OLD_PREFIX, writeTail } from '../../src/sandbox/chunked-metadata.js';
import { PackWriter } from '../../src/store/pack-writer.js';
import { openStore } from '../../src/store/paths.js';
import type { SampleFormat } from '../support/layers/sample-image.js';
import { writeSampleImage } from '../support/layers/sample-image.js';
import {
  addBlob,
  changeImage,
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
import { assertProven, failureOf, layerAsks, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest';

const TAR = tarOf({
  one: noise(1, 150_000),
  two: noise(2, 150_000),
  'and/three': noise(3, 40_000),
});

/** An image of one layer in this format; the layer and its blob. */
async function sample(t: TestContext, format: SampleFormat, tar = TAR) {
  const layout = emptyLayout(t);
  const path = join(temporaryDirectory(t), 'it.tar');
  writeFileSync(path, tar);
  await writeSampleImage({ layoutDir: layout, ref: 'it', sources: [{ kind: 'tar', path }], format });
  const manifest = readManifest(layout, 'it');
  const layer = manifest.layers[0]!;
  return {
    layout,
    layer,
    blob: readBlob(layout, layer.digest),
    diffIds: readConfig(layout, manifest).rootfs.diff_ids,
  };
}

type Sample = Awaited<ReturnType<typeof sample>>;

/** The image with this blob and these annotations instead. */
function replace(
  { layout, layer, diffIds }: Sample,
  blob: Buffer,
  annotations = layer.annotations,
): DescriptorJson {
  const { annotations: _, ...plain } = layer;
  const changed = { ...plain, digest: addBlob(layout, blob), size: blob.length };
  const described = annotations === undefined ? changed : { ...changed, annotations };
  nameImage(layout, 'it', [described], diffIds);
  return described;
}

/** Pulls what is now in the layout: as one stream, proven, with one warning that ends so. */
async function assertPulledWhole(t: TestContext, { layout }: Sample, says: RegExp): Promise<void> {
  const registry = await startSandbox(t, { layout });
  const { result, events } = await pull(`${registry.host}/x:it`, { store: temporaryDirectory(t) });
  assertProven(result);
  const [layer] = result.layers;
  assert.equal(layer!.requests, layerAsks(registry).length, 'what the metadata cost counts, too');
  const told = warnings(events);
  assert.equal(
    told.filter((warning) => warning.endsWith('pulling the full layer instead')).length,
    1,
    told.join('\n'),
  );
  const last = told.at(-1) ?? '';
  assert.match(last, says);
  assert.ok(last.includes(layer!.digest), last);
  assert.equal(layer!.format, layer!.mediaType.endsWith('gzip') ? 'gzip' : 'zstd');
  assert.deepEqual([layer!.reusedBytes, layer!.resumedBytes], [0, 0]);
  const { receivedBytes, totalBytes } = events.findLast((event) => event.event === 'progress')!;
  assert.ok(receivedBytes <= totalBytes, `${receivedBytes} of ${totalBytes} bytes`);
}

test('an eStargz layer whose TOC has another digest than its annotation is pulled as an opaque layer', async (t) => {
  const one = await sample(t, 'estargz');
  const lie = `sha256:${'d'.repeat(64)}`;
  changeImage(one.layout, 'it', ({ layers }) => {
    layers[0]!.annotations![TOC_DIGEST] = lie;
  });
  await assertPulledWhole(t, one, /TOC does not match its annotation: expected sha256:dddd.*, twice/);
});

test('an eStargz annotation that is not a digest causes a warning', async (t) => {
  const one = await sample(t, 'estargz');
  changeImage(one.layout, 'it', ({ layers }) => {
    layers[0]!.annotations![TOC_DIGEST] = 'sha256:short';
  });
  await assertPulledWhole(t, one, /toc\.digest is no digest/);
});

test('an eStargz footer with a wrong offset causes a warning', async (t) => {
  for (const offset of [0, 1000]) {
    const one = await sample(t, 'estargz');
    const digitsAt = one.blob.length - 51 + 16;
    const blob = Buffer.from(one.blob);
    blob.write(offset.toString(16).padStart(16, '0'), digitsAt, 'latin1');
    replace(one, blob);
    await assertPulledWhole(t, one, /TOC/);
  }
});

test('a gzip layer with the eStargz annotation and no footer is pulled as gzip', async (t) => {
  const one = await sample(t, 'gzip');
  replace(one, one.blob, { [TOC_DIGEST]: `sha256:${'d'.repeat(64)}` });
  const { host } = await startSandbox(t, { layout: one.layout });
  const { result } = await pull(`${host}/x:it`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.equal(result.layers[0]!.format, 'gzip');
});

interface Toc {
  entries: Array<{ name: string; digest: string; size: number; offset: number; endOffset?: number }>;
}

/** The same data frames under a changed TOC, whose position and digest fit, in a dialect without tar-split. */
async function withToc(one: Sample, change: (toc: Toc) => void): Promise<void> {
  const position = one.layer.annotations![`${OLD_PREFIX}manifest-position`]!;
  const [start = 0, length = 0] = position.split(':').map(Number);
  const toc = JSON.parse((await decompress(one.blob.subarray(start, start + length))).toString()) as Toc;
  change(toc);
  const parts = [one.blob.subarray(0, start - 8)];
  const compressedToc = await compressText(Buffer.from(JSON.stringify(toc)));
  const [written] = writeTail((bytes) => parts.push(bytes), start - 8, OLD_MAGIC, compressedToc);
  replace(one, Buffer.concat(parts), {
    ...one.layer.annotations,
    [`${OLD_PREFIX}manifest-checksum`]: compressedToc.digest,
    [`${OLD_PREFIX}manifest-position`]: written,
  });
}

function entryOf(toc: Toc, name: string): Toc['entries'][number] {
  return toc.entries.find((entry) => entry.name === name)!;
}

const LIES: ReadonlyArray<readonly [what: string, change: (toc: Toc) => void, says: RegExp]> = [
  [
    'digests exchanged',
    (toc) => {
      const [one, two] = [entryOf(toc, 'one'), entryOf(toc, 'two')];
      [one.digest, two.digest] = [two.digest, one.digest];
    },
    /digest/,
  ],
  [
    'a size that is not that of the file',
    (toc) => {
      entryOf(toc, 'two').size += 1;
    },
    /150001|size|chunks end/,
  ],
  [
    'a file left out',
    (toc) => {
      toc.entries = toc.entries.filter(({ name }) => name !== 'two');
    },
    /file|TOC|gap|frames/,
  ],
  [
    'a range beyond the data',
    (toc) => {
      entryOf(toc, 'and/three').offset = 99_999_999;
    },
    /beyond/,
  ],
];

test('a frame of more than 32 MiB causes a warning, and the totals count what is fetched afterwards', async (t) => {
  const files = { one: noise(1, 100_000), large: Buffer.alloc(33 * 2 ** 20, 'text ') };
  const tar = tarOf(files);
  const one = await sample(t, 'zstd:chunked-old', tarOf({ ...files, large: Buffer.alloc(0) }));
  const frames: Buffer[] = [];
  const add = async (start: number, end: number) => {
    const offset = frames.reduce((sum, frame) => sum + frame.length, 0);
    frames.push(await compress(tar.subarray(start, end), 1));
    return { offset, endOffset: offset + frames.at(-1)!.length };
  };
  const largeAt = 512 + Math.ceil(files.one.length / 512) * 512 + 512;
  await add(0, 512);
  const ranges = { one: await add(512, 512 + files.one.length), large: { offset: 0, endOffset: 0 } };
  await add(512 + files.one.length, largeAt);
  ranges.large = await add(largeAt, largeAt + files.large.length);
  await add(largeAt + files.large.length, tar.length);
  const entries = (['one', 'large'] as const).map((name) => ({
    type: 'reg',
    name,
    mode: 0o644,
    size: files[name].length,
    digest: digestOf(files[name]),
    ...ranges[name],
  }));
  const dataBytes = frames.reduce((sum, frame) => sum + frame.length, 0);
  const toc = await compressText(Buffer.from(JSON.stringify({ version: 1, entries })));
  const [written] = writeTail((bytes) => frames.push(bytes), dataBytes, OLD_MAGIC, toc);
  const annotations = {
    [`${OLD_PREFIX}manifest-checksum`]: toc.digest,
    [`${OLD_PREFIX}manifest-position`]: written,
  };
  replace({ ...one, diffIds: [digestOf(tar)] }, Buffer.concat(frames), annotations);
  await assertPulledWhole(t, one, /a zstd frame could decode to more than 32 MiB at once/);
});

for (const format of ['zstd:chunked-old', 'stargz-zstd'] as const) {
  for (const [what, change, says] of LIES) {
    test(`a TOC of ${format} with ${what} causes a warning, and the layer is pulled as an opaque one`, async (t) => {
      const one = await sample(t, format);
      await withToc(one, change);
      await assertPulledWhole(t, one, says);
    });
  }

  test(`a TOC of ${format} that was only serialized again is accepted`, async (t) => {
    const one = await sample(t, format);
    await withToc(one, () => {});
    const { host } = await startSandbox(t, { layout: one.layout });
    const { result, events } = await pull(`${host}/x:it`, { store: temporaryDirectory(t) });
    assertProven(result);
    assert.deepEqual(warnings(events), []);
    assert.equal(result.layers[0]!.format, 'zstd:chunked-no-tarsplit');
  });
}

test('an offset at which no frame begins is noticed when only a part is fetched, and causes a warning', async (t) => {
  const one = await sample(t, 'zstd:chunked-old');
  await withToc(one, (toc) => {
    entryOf(toc, 'and/three').offset += 1;
  });
  await writeTars(t, one.layout, 'contents', [tarOf({ first: noise(1, 150_000), third: noise(3, 40_000) })]);
  const { host } = await startSandbox(t, { layout: one.layout });
  const store = temporaryDirectory(t);
  await pull(`${host}/x:contents`, { store });
  const { result, events } = await pull(`${host}/x:it`, { store });
  assertProven(result);
  assert.match(warnings(events).at(-1) ?? '', /frames?.*pulling the full layer instead$/);
});

/** Above 4 MiB a zstd blob is asked for a footer where it has no annotations. */
const LARGE = tarOf({ large: noise(4, 4_500_000), small: noise(5, 1000) });

test('a zstd:chunked layer without annotations is recognised by its footer', async (t) => {
  for (const format of ['zstd:chunked', 'zstd:chunked-old'] as const) {
    const one = await sample(t, format, LARGE);
    replace(one, one.blob, {});
    const { host } = await startSandbox(t, { layout: one.layout });
    const { result, events } = await pull(`${host}/x:it`, { store: temporaryDirectory(t) });
    assertProven(result);
    assert.deepEqual(warnings(events), []);
    const expected = format === 'zstd:chunked' ? format : 'zstd:chunked-no-tarsplit';
    assert.equal(result.layers[0]!.format, expected);
  }
});

test('a zstd:chunked footer with a wrong offset causes a warning, and the layer is pulled as an opaque one', async (t) => {
  const one = await sample(t, 'zstd:chunked-old', LARGE);
  const blob = Buffer.from(one.blob);
  blob.writeBigUInt64LE(5000n, blob.length - 40);
  replace(one, blob, {});
  await assertPulledWhole(t, one, /the TOC is no zstd frame/);
});

test('a malformed footer is ignored: the layer is opaque from the start', async (t) => {
  const one = await sample(t, 'zstd:chunked-old', LARGE);
  const blob = Buffer.from(one.blob);
  blob.writeBigUInt64LE(2n ** 60n, blob.length - 40);
  replace(one, blob, {});
  const { host } = await startSandbox(t, { layout: one.layout });
  const { result, events } = await pull(`${host}/x:it`, { store: temporaryDirectory(t) });
  assertProven(result);
  assert.deepEqual([warnings(events), result.layers[0]!.format], [[], 'zstd']);
});

test('where both the TOC and the blob are wrong, the pull fails with the error of the TOC', async (t) => {
  const one = await sample(t, 'estargz');
  changeImage(one.layout, 'it', ({ layers }, { rootfs }) => {
    layers[0]!.annotations![TOC_DIGEST] = `sha256:${'d'.repeat(64)}`;
    rootfs.diff_ids = [`sha256:${'e'.repeat(64)}`];
  });
  const { host } = await startSandbox(t, { layout: one.layout });
  const error = await failureOf(pull(`${host}/x:it`, { store: temporaryDirectory(t) }));
  assert.deepEqual([error.code, error.exitCode, error.layer], ['digest-mismatch', 6, one.layer.digest]);
  assert.match(error.message, /TOC does not match its annotation/);
});

/** Leaves the beginning of a blob in the store, as a pull that was broken off does. */
function leaveRaw(store: string, digest: string, bytes: Buffer): void {
  const writer = new PackWriter(openStore(store));
  const region = writer.reserve(bytes.length);
  writer.writeUnindexed(region, bytes, region.start);
  writer.recordBlobPart(region, {
    blobDigest: digestBytes(parseDigest(digest, 'layer')),
    packOffset: region.start,
    lengthBytes: bytes.length,
    blobStart: 0,
    crc32: crc32(bytes),
  });
  writer.close();
}

test('bytes that an earlier pull left of a blob with a wrong TOC are resumed, and fetched again where they are wrong', async (t) => {
  const one = await sample(t, 'zstd:chunked-old');
  const [[, change]] = LIES as [(typeof LIES)[number]];
  await withToc(one, change);
  const { digest } = readManifest(one.layout, 'it').layers[0]!;
  const good = readBlob(one.layout, digest).subarray(0, 100_000);
  const bad = Buffer.from(good);
  bad[50_000]! ^= 1;
  for (const [left, resumedBytes] of [
    [good, good.length],
    [bad, 0],
  ] as const) {
    const { host } = await startSandbox(t, { layout: one.layout });
    const store = temporaryDirectory(t);
    leaveRaw(store, digest, left);
    const { result, events } = await pull(`${host}/x:it`, { store });
    assertProven(result);
    assert.equal(result.layers[0]!.resumedBytes, resumedBytes);
    const again = warnings(events).filter((warning) => /does not match its digest.*again$/.test(warning));
    assert.equal(again.filter((warning) => warning.startsWith('the blob')).length, left === bad ? 1 : 0);
  }
});

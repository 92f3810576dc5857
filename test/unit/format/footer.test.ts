import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { footerGuessBytes, parseChunkedFooter, parseEstargzFooter } from '../../../src/format/footer.js';
import { dialectLayers } from '../../support/dialect-layers.js';
import { formatWriter } from '../../support/layers/sample-format.js';
import { noise, tarOf } from '../../support/layout.js';
import { readLayers } from './fixture.js';

const TAR = tarOf({ a: noise(1, 3000), b: noise(2, 10) });
const OLD_PREFIX = 'io.containers.zstd-chunked.';
const PREFIX = 'io.github.containers.zstd-chunked.';

async function written(format: Parameters<typeof formatWriter>[0]) {
  const parts: Buffer[] = [];
  const { annotations } = await formatWriter(format, {}).write(
    [TAR],
    (bytes) => parts.push(bytes),
    () => {},
  );
  return { blob: Buffer.concat(parts), annotations };
}

/** What an annotation says, in the form of a footer's position. */
function positionOf(annotation: string | undefined) {
  const [start = 0, bytes = 0, uncompressedBytes = 0] = annotation!.split(':').map(Number);
  return { start, end: start + bytes, uncompressedBytes };
}

/** A footer of these fields. */
function footer(fields: ReadonlyArray<number | bigint>, magic: string): Buffer {
  const bytes = Buffer.alloc(fields.length * 8);
  for (const [i, field] of fields.entries()) bytes.writeBigUInt64LE(BigInt(field), i * 8);
  return Buffer.concat([bytes, Buffer.from(magic, 'latin1')]);
}

const short = (...fields: Array<number | bigint>) => footer(fields, 'GnUlInUx');
const long = (...fields: Array<number | bigint>) => footer(fields, 'GNUlInUx');

test('the footers of other writers lead to where the annotations do', async () => {
  for (const { blob, positions } of await readLayers()) {
    const { toc, tarSplit } = parseChunkedFooter(blob.subarray(-64), blob.length)!;
    const { digest: _, ...annotated } = positions.toc;
    assert.deepEqual(toc, annotated);
    assert.deepEqual(tarSplit, positions.tarSplit && { ...tarSplit, ...positions.tarSplit });
    assert.ok(tarSplit !== undefined);
  }
  for (const ref of ['old', 'nerdctl'] as const) {
    for (const { blob, annotations } of dialectLayers(ref)) {
      const toc = positionOf(annotations[`${OLD_PREFIX}manifest-position`]);
      assert.deepEqual(parseChunkedFooter(blob.subarray(-40), blob.length), { toc });
    }
  }
});

test('the footers of eStargz blobs lead to the TOC', async () => {
  const blobs = [...dialectLayers('estargz').map(({ blob }) => blob), (await written('estargz')).blob];
  for (const blob of blobs) {
    const { tocStart, tocEnd } = parseEstargzFooter(blob.subarray(-51), blob.length)!;
    const member = gunzipSync(blob.subarray(tocStart, tocEnd));
    assert.equal(member.toString('latin1', 0, 18), 'stargz.index.json\0');
    assert.equal(tocEnd, blob.length - 51);
    assert.equal(parseChunkedFooter(blob, blob.length), undefined);
  }
});

test('written blobs have the footer of their format, and none other', async () => {
  for (const format of ['zstd:chunked', 'zstd:chunked-annotated'] as const) {
    const { blob, annotations } = await written(format);
    assert.deepEqual(parseChunkedFooter(blob.subarray(-100), blob.length), {
      toc: positionOf(annotations[`${PREFIX}manifest-position`]),
      tarSplit: positionOf(annotations[`${PREFIX}tarsplit-position`]),
    });
    assert.equal(parseEstargzFooter(blob, blob.length), undefined);
  }
  for (const format of ['zstd:chunked-old', 'stargz-zstd'] as const) {
    const { blob, annotations } = await written(format);
    const toc = positionOf(annotations[`${OLD_PREFIX}manifest-position`]);
    assert.deepEqual(parseChunkedFooter(blob.subarray(-100), blob.length), { toc });
  }
  for (const format of ['gzip', 'zstd', 'tar'] as const) {
    const { blob } = await written(format);
    assert.equal(parseChunkedFooter(blob, blob.length), undefined);
    assert.equal(parseEstargzFooter(blob, blob.length), undefined);
  }
});

test('a long footer without tar-split is one of the TOC alone', () => {
  const toc = { start: 1000, end: 1100, uncompressedBytes: 500 };
  assert.deepEqual(parseChunkedFooter(long(1000, 100, 500, 1, 0, 0, 0), 2000), { toc });
  assert.deepEqual(parseChunkedFooter(long(1000, 100, 500, 1, 1108, 50, 300), 2000), {
    toc,
    tarSplit: { start: 1108, end: 1158, uncompressedBytes: 300 },
  });
});

test('positions that cannot be are no footer', () => {
  assert.ok(parseChunkedFooter(short(1900, 100, 500, 1), 2000));
  const bad = [
    short(1901, 100, 500, 1),
    short(7, 100, 500, 1),
    short(1000, 0, 500, 1),
    short(1000, 100, 0, 1),
    short(1000, 100, 500, 2),
    short(1000, 100, 500, 0),
    short(2n ** 64n - 50n, 100, 500, 1),
    short(1000, 2n ** 64n - 1000n, 500, 1),
    long(1000, 100, 500, 1, 1950, 51, 300),
    long(1000, 100, 500, 1, 1108, 0, 300),
    long(1000, 100, 500, 1, 1108, 50, 0),
    long(1000, 100, 500, 1, 0, 50, 300),
    long(1901, 100, 500, 1, 0, 0, 0),
  ];
  for (const bytes of bad) assert.equal(parseChunkedFooter(bytes, 2000), undefined, bytes.toString('hex'));
});

test('without its magic, or cut short, it is no footer', () => {
  const good = short(1000, 100, 500, 1);
  assert.equal(parseChunkedFooter(good.subarray(1), 2000), undefined);
  assert.equal(parseChunkedFooter(Buffer.alloc(0), 2000), undefined);
  assert.equal(parseChunkedFooter(Buffer.concat([good, Buffer.from('\n')]), 2000), undefined);
  assert.equal(parseChunkedFooter(footer([1000, 100, 500, 1], 'GNUlInUX'), 2000), undefined);
  // The magic of the long form behind the bytes of the short one.
  assert.equal(parseChunkedFooter(footer([1000, 100, 500, 1], 'GNUlInUx'), 2000), undefined);
});

/** An empty member whose extra field leads to `offset`, in the form with a subfield or the legacy one without. */
function estargzFooter(offset: string, legacy = false): Buffer {
  const text = Buffer.from(`${offset}STARGZ`, 'latin1');
  const subfield = legacy ? Buffer.alloc(0) : Buffer.from([0x53, 0x47, text.length, 0]);
  const extraBytes = subfield.length + text.length;
  const head = Buffer.from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, extraBytes, 0]);
  const end = Buffer.from([1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
  return Buffer.concat([head, subfield, text, end]);
}

const hex = (offset: number) => offset.toString(16).padStart(16, '0');

test('both forms of the eStargz footer are read', () => {
  const newer = estargzFooter(hex(1000));
  const legacy = estargzFooter(hex(1000), true);
  assert.deepEqual([newer.length, legacy.length], [51, 47]);
  // They are what they claim: members of nothing.
  assert.deepEqual([gunzipSync(newer).length, gunzipSync(legacy).length], [0, 0]);
  assert.deepEqual(parseEstargzFooter(newer, 2000), { tocStart: 1000, tocEnd: 1949 });
  assert.deepEqual(parseEstargzFooter(legacy, 2000), { tocStart: 1000, tocEnd: 1953 });
  assert.deepEqual(parseEstargzFooter(Buffer.concat([noise(1, 100), legacy]), 2000), {
    tocStart: 1000,
    tocEnd: 1953,
  });
});

test('an eStargz footer that makes no sense is none', () => {
  for (const legacy of [false, true]) {
    const end = legacy ? 1953 : 1949;
    assert.ok(parseEstargzFooter(estargzFooter(hex(end - 20), legacy), 2000));
    assert.equal(parseEstargzFooter(estargzFooter(hex(end - 19), legacy), 2000), undefined);
    assert.equal(parseEstargzFooter(estargzFooter(hex(5000), legacy), 2000), undefined);
    assert.equal(parseEstargzFooter(estargzFooter('ffffffffffffffff', legacy), 2000), undefined);
    for (const text of ['000000000000-3e8', '0x00000000003e8a', '             3e8', '00000000000003E8']) {
      assert.equal(parseEstargzFooter(estargzFooter(text, legacy), 2000), undefined, text);
    }
    const good = estargzFooter(hex(1000), legacy);
    for (const at of [0, 1, 2, 3, 10, 11, good.length - 14]) {
      const bad = Buffer.from(good);
      bad[at]! ^= 1;
      assert.equal(parseEstargzFooter(bad, 2000), undefined, `byte ${at}`);
    }
    for (let bytes = 0; bytes < good.length; bytes++) {
      assert.equal(parseEstargzFooter(good.subarray(good.length - bytes), 2000), undefined, `${bytes} bytes`);
    }
  }
});

test('the end of a blob that is read is a sixteenth, between 16 and 256 KiB', () => {
  const guesses = [0, 100_000, 262_144, 1_000_001, 4_194_304, 1e9].map(footerGuessBytes);
  assert.deepEqual(guesses, [16_384, 16_384, 16_384, 62_501, 262_144, 262_144]);
});

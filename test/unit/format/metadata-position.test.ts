import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { PullError } from '../../../src/format/error.js';
import {
  footerGuessBytes,
  type MetadataLength,
  metadataMemoryBytes,
  parseChunkedAnnotations,
  parseChunkedFooter,
  parseEstargzFooter,
} from '../../../src/format/metadata-position.js';
import { dialectLayers } from '../../support/dialect-layers.js';
import { formatWriter } from '../../support/layers/sample-image.js';
import { noise, tarOf } from '../../support/layout.js';
import { readLayers, sha256, throwsError } from './fixture.js';

const NEW = 'io.github.containers.zstd-chunked.';
const OLD = 'io.containers.zstd-chunked.';
const TOC_DIGEST = `sha256:${'1'.repeat(64)}`;
const SPLIT_DIGEST = `sha256:${'2'.repeat(64)}`;
const HUGE = 2 ** 40;

const toc = (position: string, prefix = NEW) => ({
  [`${prefix}manifest-checksum`]: TOC_DIGEST,
  [`${prefix}manifest-position`]: position,
});

test('the annotations of a fixture lead to its TOC', async () => {
  for (const { blob, positions } of await readLayers()) {
    assert.equal(positions.dialect, NEW);
    assert.equal(sha256(blob.subarray(positions.toc.start, positions.toc.end)), positions.toc.digest);
  }
});

test('a layer without chunked annotations is not chunked', () => {
  assert.equal(parseChunkedAnnotations(undefined, 10), undefined);
  assert.equal(parseChunkedAnnotations({ 'org.opencontainers.image.title': 'x' }, 10), undefined);
});

test('an older writer names a TOC and no tar-split', () => {
  assert.deepEqual(parseChunkedAnnotations(toc('8:2:3:1', OLD), 10), {
    dialect: OLD,
    toc: { start: 8, end: 10, uncompressedBytes: 3, digest: TOC_DIGEST },
  });
});

test('a tar-split is there with or without a digest of its own', () => {
  const annotations = { ...toc('100:20:300:1'), [`${NEW}tarsplit-position`]: '128:30:400' };
  const tarSplit = { start: 128, end: 158, uncompressedBytes: 400 };
  assert.deepEqual(parseChunkedAnnotations(annotations, 222)?.tarSplit, tarSplit);
  const withDigest = { ...annotations, [`${NEW}tarsplit-checksum`]: SPLIT_DIGEST };
  assert.deepEqual(parseChunkedAnnotations(withDigest, 222)?.tarSplit, { ...tarSplit, digest: SPLIT_DIGEST });
});

const list = /is not a list of numbers/;
const malformed: [string, Record<string, string>, RegExp][] = [
  ['no position', { [`${NEW}manifest-checksum`]: TOC_DIGEST }, /manifest-position is missing/],
  ['no checksum', { [`${NEW}manifest-position`]: '8:2:3:1' }, /manifest-checksum is missing/],
  ['a sign', toc('+8:2:3:1'), list],
  ['white space', toc('8:2:3:1 '), list],
  ['a line feed', toc('8:2:3:1\n'), list],
  ['hex digits', toc('0x8:2:3:1'), list],
  ['nothing between colons', toc('8::3:1'), list],
  ['a number of 17 digits', toc('8:2:00000000000000003:1'), list],
  ['an unsafe number', toc('8:2:9999999999999999:1'), /has a number that is too large/],
  ['three numbers', toc('8:2:3'), /has 3 numbers instead of 4/],
  ['five numbers', toc('8:2:3:1:1'), /has 5 numbers instead of 4/],
  ['another TOC type', toc('8:2:3:2'), /has TOC type 2; only 1 is known/],
  ['a start before any frame', toc('7:2:3:1'), /starts at 7, inside a frame header/],
  ['an empty range', toc('8:0:3:1'), /describes an empty range/],
  ['an empty TOC', toc('8:2:0:1'), /describes an empty range/],
  ['an end outside', toc(`8:${HUGE - 7}:3:1`), /beyond the blob's \d+ bytes/],
  [
    'a checksum that is none',
    { ...toc('8:2:3:1'), [`${NEW}manifest-checksum`]: 'x' },
    /manifest-checksum is not/,
  ],
  ['four numbers of a tar-split', split('9:2:3:1'), /tarsplit-position has 4 numbers instead of 3/],
  ['a tar-split outside', split(`${HUGE}:1:3`), /tarsplit-position ends at/],
  [
    'a tar-split digest that is none',
    { ...split('8:2:3'), [`${NEW}tarsplit-checksum`]: '' },
    /tarsplit-checksum is/,
  ],
];

function split(position: string): Record<string, string> {
  return { ...toc('8:2:3:1'), [`${NEW}tarsplit-position`]: position };
}

for (const [what, annotations, message] of malformed) {
  test(`annotations with ${what} are malformed`, () => {
    throwsError(() => parseChunkedAnnotations(annotations, HUGE), 'metadata-malformed', message);
  });
}

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

const MIB = 2 ** 20;

/** Metadata of so many small files, as the benchmark's sample of them has it. */
function honest(files: number): [MetadataLength, MetadataLength] {
  return [
    { bytes: files * 71, uncompressedBytes: files * 262 },
    { bytes: files * 42, uncompressedBytes: files * 1153 },
  ];
}

function codeOf(toc: MetadataLength, tarSplit?: MetadataLength): string | undefined {
  try {
    metadataMemoryBytes(toc, tarSplit);
    return undefined;
  } catch (error) {
    assert.ok(error instanceof PullError);
    return error.code;
  }
}

test('the metadata of 200,000 files is read, that of 400,000 with tar-split is too much', () => {
  assert.equal(codeOf(...honest(200_000)), undefined);
  assert.equal(codeOf(...honest(400_000)), 'unsupported');
  assert.equal(codeOf(honest(400_000)[0]), undefined);
});

test('a part that would decode to more than 256 times its bytes is refused, beyond a MiB', () => {
  assert.equal(codeOf({ bytes: 1, uncompressedBytes: MIB }), undefined);
  assert.equal(codeOf({ bytes: 1000, uncompressedBytes: MIB + 256_001 }), 'metadata-malformed');
  assert.equal(
    codeOf(honest(10)[0], { bytes: 1000, uncompressedBytes: MIB + 256_001 }),
    'metadata-malformed',
  );
});

test('large metadata has to bring a byte for 32', () => {
  assert.equal(codeOf({ bytes: MIB, uncompressedBytes: 128 * MIB }), undefined);
  assert.equal(codeOf({ bytes: MIB, uncompressedBytes: 128 * MIB + 1 }), 'metadata-malformed');
  const half = { bytes: MIB / 2, uncompressedBytes: 64 * MIB + 1 };
  assert.equal(codeOf(half), undefined);
  assert.equal(codeOf(half, half), 'metadata-malformed');
});

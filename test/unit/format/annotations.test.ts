import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseChunkedAnnotations } from '../../../src/format/annotations.js';
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

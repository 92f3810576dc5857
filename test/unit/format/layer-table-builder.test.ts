import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decompress } from '@mongodb-js/zstd';
import { digestAt } from '../../../src/format/digest.js';
import { SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../../../src/format/layer-table.js';
import { buildLayerTable } from '../../../src/format/layer-table-builder.js';
import { readLayers, sha256, throwsError } from './fixture.js';

const HEX = 'ab'.repeat(32);
const digestOf = (n: number) => `sha256:${n.toString(16).padStart(64, '0')}`;

type Entry = Record<string, unknown>;

const HEADER = { type: 2, payload: Buffer.alloc(512).toString('base64') };

/** Two files of 10 and 20 bytes with their tar-split, and 512 bytes of header before each. */
function sample(): { entries: Entry[]; lines: Entry[]; top: Entry; tocStart: number } {
  return {
    entries: [
      { type: 'dir', name: 'd/' },
      { type: 'reg', name: 'd/a', size: 10, digest: digestOf(1), offset: 100, endOffset: 120 },
      { type: 'reg', name: 'd/empty' },
      { type: 'reg', name: 'd/b', size: 20, digest: digestOf(2), offset: 130, endOffset: 150 },
    ],
    lines: [
      HEADER,
      { type: 1, name: 'd/', payload: null },
      HEADER,
      { type: 1, name: 'd/a', size: 10, payload: 'AAAAAAAAAAA=' },
      HEADER,
      { type: 1, name: 'd/empty', payload: null },
      HEADER,
      { type: 1, name: 'd/b', size: 20, payload: 'AAAAAAAAAAA=' },
      { type: 2, payload: null },
      { type: 2, payload: Buffer.alloc(1025).toString('base64') },
    ],
    top: { version: 1 },
    tocStart: 200,
  };
}

function build(from: ReturnType<typeof sample>) {
  return buildLayerTable({
    toc: Buffer.from(JSON.stringify({ ...from.top, entries: from.entries })),
    tarSplit: Buffer.from(from.lines.map((line) => `${JSON.stringify(line)}\n`).join('')),
    tocStart: from.tocStart,
  });
}

test('every content of the fixtures lies in the tar and in the blob where the table says', async () => {
  for (const { toc, tarSplit, positions, blob, tar } of await readLayers()) {
    const table = buildLayerTable({ toc, tarSplit, tocStart: positions.toc.start - 8 });
    assert.equal(table.tarBytes, tar.length);
    assert.ok(table.count > 0);
    for (let i = 0; i < table.count; i++) {
      const start = table.tarStart[i]!;
      const content = tar.subarray(start, start + table.sizeBytes[i]!);
      assert.equal(sha256(content), digestAt(table.digests, i));
      assert.deepEqual(await decompress(blob.subarray(table.blobStart[i]!, table.blobEnd[i]!)), content);
    }
  }
});

test('the rows of a table are on shared memory and leave out what is empty', () => {
  const table = build(sample());
  assert.equal(table.count, 2);
  assert.deepEqual([...table.tarStart], [1024, 2058]);
  assert.deepEqual([...table.sizeBytes], [10, 20]);
  assert.deepEqual([...table.blobStart], [100, 130]);
  assert.deepEqual([...table.blobEnd], [120, 150]);
  assert.deepEqual([...table.chunkFirst], [0, 0, 0]);
  assert.equal(digestAt(table.digests, 1), digestOf(2));
  assert.equal(table.tarBytes, 4 * 512 + 30 + 1025);
  assert.equal(table.dataEnd, 200);
  assert.ok(table.tarStart.buffer instanceof SharedArrayBuffer);
});

test('a layer without any content makes an empty table', () => {
  const from = sample();
  from.entries = [{ type: 'dir', name: 'd/' }];
  from.lines = from.lines.slice(0, 2);
  const table = build(from);
  assert.equal(table.count, 0);
  assert.equal(table.tarBytes, 512);
});

test('columns grow beyond their first capacity', () => {
  const from = sample();
  from.entries = [];
  from.lines = [];
  for (let i = 0; i < 3000; i++) {
    from.entries.push({
      type: 'reg',
      name: `f${i}`,
      size: 1,
      digest: digestOf(i),
      offset: i * 9,
      endOffset: i * 9 + 9,
    });
    from.lines.push(HEADER, { type: 1, name: `f${i}`, size: 1 });
  }
  from.tocStart = 27_000;
  const table = build(from);
  assert.equal(table.count, 3000);
  assert.equal(table.blobEnd[2999], 27_000);
  assert.equal(digestAt(table.digests, 2999), digestOf(2999));
});

test('a tar-split with more files than headers is malformed', () => {
  const from = sample();
  from.lines = from.lines.map((line) => (line === HEADER ? { ...line, payload: 'AAAA' } : line));
  throwsError(() => build(from), 'metadata-malformed', /line \d+: no header before it/);
});

/** One file with three chunks of 4, 5 and the rest of its bytes. */
function chunked(sizeBytes: number, blobBytes: number): ReturnType<typeof sample> {
  const from = sample();
  const name = 'big';
  from.entries = [
    {
      type: 'reg',
      name,
      size: sizeBytes,
      digest: digestOf(1),
      offset: 50,
      endOffset: 50 + blobBytes,
      chunkSize: 4,
      chunkDigest: digestOf(10),
    },
    { type: 'chunk', name, offset: 60, chunkSize: 5, chunkOffset: 4, chunkDigest: digestOf(11) },
    {
      type: 'chunk',
      name,
      offset: 70,
      chunkSize: sizeBytes - 9,
      chunkOffset: 9,
      chunkDigest: digestOf(12),
      chunkType: 'zeros',
    },
    {
      type: 'reg',
      name: 'small',
      size: 1,
      digest: digestOf(2),
      offset: 60 + blobBytes,
      endOffset: 70 + blobBytes,
    },
  ];
  from.lines = [HEADER, { type: 1, name, size: sizeBytes }, HEADER, { type: 1, name: 'small', size: 1 }];
  from.tocStart = 100 + blobBytes;
  return from;
}

test('only a content above a limit of a span has chunk rows', () => {
  const cases = [
    { sizeBytes: SPAN_TAR_BYTES, blobBytes: SPAN_BLOB_BYTES, chunks: 0 },
    { sizeBytes: SPAN_TAR_BYTES + 1, blobBytes: 2000, chunks: 3 },
    { sizeBytes: 100, blobBytes: SPAN_BLOB_BYTES + 1, chunks: 3 },
  ];
  for (const { sizeBytes, blobBytes, chunks } of cases) {
    const table = build(chunked(sizeBytes, blobBytes));
    assert.deepEqual([...table.chunkFirst], [0, chunks, chunks]);
    assert.deepEqual([...table.chunkBlobStart], [50, 60, 70].slice(0, chunks));
    assert.deepEqual([...table.chunkTarStart], [512, 516, 521].slice(0, chunks));
    for (let i = 0; i < chunks; i++) assert.equal(digestAt(table.chunkDigests, i), digestOf(10 + i));
  }
});

test('a content longer than its part of the blob can decode to is malformed', () => {
  build(chunked(30 * 2 ** 15, 30));
  throwsError(
    () => build(chunked(30 * 2 ** 15 + 1, 30)),
    'metadata-malformed',
    /30 bytes of the blob cannot decode to/,
  );
});

test('a large content without chunks has no chunk rows', () => {
  const from = chunked(SPAN_TAR_BYTES + 1, 2000);
  from.entries.splice(1, 2);
  delete from.entries[0]?.['chunkSize'];
  const table = build(from);
  assert.deepEqual([...table.chunkFirst], [0, 0, 0]);
});

const malformed: [string, (from: ReturnType<typeof sample>) => void, RegExp][] = [
  ['a missing digest', (f) => delete f.entries[1]?.['digest'], /TOC entry 1: digest is missing/],
  ['another hash', (f) => set(f, 1, 'digest', `md5:${HEX}`), /TOC entry 1: digest is not a sha256 digest/],
  ['upper-case hex', (f) => set(f, 1, 'digest', `sha256:${HEX.toUpperCase()}`), /digest is not a sha256/],
  ['a short digest', (f) => set(f, 1, 'digest', 'sha256:ab'), /digest is not a sha256 digest/],
  [
    'an empty range',
    (f) => set(f, 1, 'endOffset', 100),
    /TOC entry 1: endOffset 100 is not beyond offset 100/,
  ],
  ['no endOffset', (f) => delete f.entries[1]?.['endOffset'], /endOffset 0 is not beyond offset 100/],
  ['a range over the last', (f) => set(f, 3, 'offset', 119), /TOC entry 3: offset 119 lies before 120/],
  ['a range in the TOC', (f) => set(f, 3, 'endOffset', 201), /endOffset 201 lies beyond 200/],
  ['another size', (f) => set(f, 3, 'size', 21), /TOC entry 3: size is 21, but 20 in the tar-split/],
  ['another name', (f) => set(f, 3, 'name', 'd/c'), /TOC entry 3: name differs/],
  ['a negative offset', (f) => set(f, 3, 'offset', -1), /TOC entry 3: offset is negative/],
  [
    'a file too many',
    (f) => f.lines.splice(7, 1),
    /TOC entry 3: the tar-split has only 1 files with content/,
  ],
  ['a file too few', (f) => f.entries.pop(), /The TOC has 1 files with content, the tar-split 2/],
  ['a chunkOffset in a file', (f) => set(f, 1, 'chunkOffset', 5), /TOC entry 1: chunkOffset is 5 in a reg/],
  [
    'a first chunk alone',
    (f) => set(f, 1, 'chunkSize', 9),
    /TOC entry 1: the file has 10 bytes, but its chunks end at 9/,
  ],
  ['a last file cut short', (f) => set(f, 3, 'chunkSize', 9), /TOC entry 3: the file has 20 bytes/],
  [
    'a chunk of a directory',
    (f) => f.entries.splice(1, 0, { type: 'chunk' }),
    /TOC entry 1: a chunk that follows no/,
  ],
  [
    'a chunk of an empty file',
    (f) => f.entries.splice(3, 0, { type: 'chunk' }),
    /TOC entry 3: a chunk that follows/,
  ],
];

function set(from: ReturnType<typeof sample>, entry: number, field: string, value: unknown): void {
  const target = from.entries[entry];
  assert.ok(target !== undefined);
  target[field] = value;
}

for (const [what, change, message] of malformed) {
  test(`metadata with ${what} is malformed`, () => {
    const from = sample();
    change(from);
    throwsError(() => build(from), 'metadata-malformed', message);
  });
}

const malformedChunks: [string, (from: ReturnType<typeof sample>) => void, RegExp][] = [
  [
    'a hole',
    (f) => set(f, 1, 'chunkOffset', 5),
    /TOC entry 1: chunkOffset is 5, but the chunks before end at 4/,
  ],
  ['an overlap', (f) => set(f, 2, 'chunkOffset', 8), /TOC entry 2: chunkOffset is 8, but .* end at 9/],
  ['no size', (f) => delete f.entries[2]?.['chunkSize'], /TOC entry 2: chunkSize is missing/],
  ['too large a size', (f) => set(f, 1, 'chunkSize', 2 ** 40), /TOC entry 1: chunkSize \d+ reaches beyond/],
  [
    'its last missing',
    (f) => f.entries.splice(2, 1),
    /TOC entry 1: the file has \d+ bytes, but its chunks end at 9/,
  ],
  [
    'an offset at its start',
    (f) => set(f, 1, 'offset', 50),
    /TOC entry 1: offset 50 lies outside \(50, 80\)/,
  ],
  ['an offset at its end', (f) => set(f, 2, 'offset', 80), /TOC entry 2: offset 80 lies outside \(60, 80\)/],
  ['no digest', (f) => delete f.entries[1]?.['chunkDigest'], /TOC entry 1: chunkDigest is missing/],
  ['a bad digest', (f) => set(f, 2, 'chunkDigest', 'sha256:x'), /TOC entry 2: chunkDigest is not a sha256/],
  [
    'no first digest',
    (f) => delete f.entries[0]?.['chunkDigest'],
    /chunkDigest of its first chunk is missing/,
  ],
];

for (const [what, change, message] of malformedChunks) {
  test(`a content whose chunks have ${what} is malformed`, () => {
    const from = chunked(SPAN_TAR_BYTES + 1, 30);
    change(from);
    throwsError(() => build(from), 'metadata-malformed', message);
  });
}

test('a name that is not UTF-8 is compared after both have lost the same bytes', () => {
  const from = sample();
  // E2 82 is the start of a sequence of three: two U+FFFD for Go, one for TextDecoder.
  const raw = Buffer.concat([Buffer.from('d/'), Buffer.from([0xe2, 0x82]), Buffer.from('x')]);
  from.lines[3] = { type: 1, name_raw: raw.toString('base64'), size: 10 };
  set(from, 1, 'name', 'd/\ufffd\ufffdx');
  assert.equal(build(from).count, 2);
  set(from, 1, 'name', 'd/\ufffdy');
  throwsError(() => build(from), 'metadata-malformed', /name differs/);
});

test('a name that one side escapes and the other does not is the same name', () => {
  const { entries, lines, tocStart } = sample();
  const toc = Buffer.from(JSON.stringify({ version: 1, entries }).replaceAll('d/a', 'd\\/\\u0061'));
  const tarSplit = Buffer.from(lines.map((line) => JSON.stringify(line)).join('\n'));
  assert.equal(buildLayerTable({ toc, tarSplit, tocStart }).count, 2);
});

test('a name in base64 is not mistaken for the name it spells', () => {
  const from = sample();
  const base64 = Buffer.from('d/a').toString('base64');
  from.lines[3] = { type: 1, name_raw: base64, size: 10 };
  assert.equal(build(from).count, 2);
  set(from, 1, 'name', base64);
  throwsError(() => build(from), 'metadata-malformed', /name differs/);
});

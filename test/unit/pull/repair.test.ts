import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SPAN_BLOB_BYTES } from '../../../src/format/layer-table.js';
import { REQUEST_BYTES } from '../../../src/plan/spans.js';
import { damagedParts } from '../../../src/pull/repair.js';
import { type ContentRow, tableOf } from '../../support/layer-tables.js';

const SIZE_BYTES = 1000;
/** Where in the tar the content of a row begins. */
const at = (row: number) => 512 + row * 2048;

/** Contents one behind the other; equal names are equal contents. */
function tableWith(names: readonly string[], blobBytes = REQUEST_BYTES) {
  const rows = names.map((name, row): ContentRow => {
    const start = row * (blobBytes + 100);
    return { name, blob: [start, start + blobBytes], tarStart: at(row), sizeBytes: SIZE_BYTES };
  });
  return tableOf(rows, names.length * (blobBytes + 100), at(names.length));
}

function partsOf(table: ReturnType<typeof tableWith>, contents: number[], fresh = (_: number) => true) {
  const { runs, copies } = damagedParts(table, { contents, chunks: [] }, fresh);
  return { runs: runs.map(({ tarStart, tarEnd, isFresh }) => [tarStart, tarEnd, isFresh]), copies };
}

test('neighbours are fetched together with what is between them, others apart', () => {
  const { runs, copies } = partsOf(tableWith(['a', 'b', 'c', 'd', 'e', 'f']), [0, 1, 3, 5]);
  assert.deepEqual(runs, [
    [at(0), at(1) + SIZE_BYTES, true],
    [at(3), at(3) + SIZE_BYTES, true],
    [at(5), at(5) + SIZE_BYTES, true],
  ]);
  assert.deepEqual(copies, []);
});

test('what came in this pull and what was there before are fetched apart', () => {
  const { runs } = partsOf(tableWith(['a', 'b', 'c']), [0, 1, 2], (tarStart) => tarStart === at(1));
  assert.deepEqual(
    runs.map(([, , fresh]) => fresh),
    [false, true, false],
  );
});

test('no request is larger than a span', () => {
  const { runs } = partsOf(tableWith(['a', 'b', 'c'], SPAN_BLOB_BYTES / 2), [0, 1, 2]);
  assert.equal(runs.length, 3);
});

test('what is between false contents is fetched over where that costs less than a request', () => {
  const names = Array.from({ length: 400 }, (_, row) => `${row}`);
  const everySecond = names.flatMap((_, row) => (row % 2 === 0 ? [row] : []));
  assert.deepEqual(partsOf(tableWith(names, 1000), everySecond).runs, [[at(0), at(398) + SIZE_BYTES, true]]);
  const { runs } = partsOf(tableWith(['a', 'b', 'c', 'd', 'e'], REQUEST_BYTES / 2), [0, 2, 4]);
  assert.deepEqual(runs, [[at(0), at(4) + SIZE_BYTES, true]]);
});

test('no request goes over bytes of the tar that the blob does not have', () => {
  const table = tableWith(['a', 'b', 'c', 'd']);
  table.blobEnd[1] = table.blobStart[2]!;
  assert.deepEqual(partsOf(table, [0, 1, 2, 3]).runs, [
    [at(0), at(1) + SIZE_BYTES, true],
    [at(2), at(3) + SIZE_BYTES, true],
  ]);
});

test('the same content at several places is fetched at one', () => {
  const { runs, copies } = partsOf(tableWith(['x', 'a', 'x', 'b', 'x', 'c', 'd']), [0, 2, 4, 5, 6]);
  assert.deepEqual(runs, [
    [at(0), at(0) + SIZE_BYTES, true],
    [at(5), at(6) + SIZE_BYTES, true],
  ]);
  assert.deepEqual(
    copies,
    [2, 4].map((row) => ({ tarStart: at(row), tarEnd: at(row) + SIZE_BYTES, run: 0, origin: at(0) })),
  );
});

test('a run that is as long as a content that is elsewhere is no copy of it', () => {
  const part = { name: 'x', blob: [100_000, 100_300], tarStart: 4096, sizeBytes: 3000 } as const;
  const chunks = [
    { blobStart: 100_000, tarStart: 4096 },
    { blobStart: 100_200, tarStart: 6096 },
  ];
  const rows: ContentRow[] = [
    { name: 'x', blob: [0, 300], tarStart: 512, sizeBytes: 3000 },
    { ...part, chunks },
    { name: 'y', blob: [100_400, 100_500], tarStart: 8096, sizeBytes: 1000 },
  ];
  const { runs, copies } = damagedParts(
    tableOf(rows, 100_600, 9600),
    { contents: [0, 1, 2], chunks: [1] },
    () => true,
  );
  assert.deepEqual(
    runs.map(({ tarStart, tarEnd }) => [tarStart, tarEnd]),
    [
      [512, 3512],
      [6096, 9096],
    ],
  );
  assert.deepEqual(copies, []);
});

test('a content whose first place is not false is fetched', () => {
  const { runs, copies } = partsOf(tableWith(['x', 'a', 'x']), [2]);
  assert.deepEqual([runs.length, copies.length], [1, 0]);
});

const CHUNKED: ContentRow = {
  name: 'large',
  blob: [100, 400],
  tarStart: 512,
  sizeBytes: 3000,
  chunks: [
    { blobStart: 100, tarStart: 512 },
    { blobStart: 200, tarStart: 1512 },
    { blobStart: 300, tarStart: 2512 },
  ],
};

/** The ranges that are fetched of a content in three chunks of which these are false. */
function chunkRuns(row: ContentRow, chunks: number[]) {
  const { runs } = damagedParts(tableOf([row], 500, 4096), { contents: [0], chunks }, () => true);
  return runs.map(({ blobStart, blobEnd, tarStart, tarEnd }) => [blobStart, blobEnd, tarStart, tarEnd]);
}

test('of a content in chunks the false ones are fetched', () => {
  assert.deepEqual(chunkRuns(CHUNKED, [1]), [[200, 300, 1512, 2512]]);
  assert.deepEqual(chunkRuns(CHUNKED, [0, 2]), [[100, 400, 512, 3512]]);
  assert.deepEqual(chunkRuns(CHUNKED, [1, 2]), [[200, 400, 1512, 3512]]);
});

test('a content with a false chunk that has no bytes in the blob is fetched as a whole', () => {
  const chunks = [
    CHUNKED.chunks![0]!,
    { blobStart: 200, tarStart: 1512 },
    { blobStart: 200, tarStart: 2512 },
  ];
  assert.deepEqual(chunkRuns({ ...CHUNKED, chunks }, [1]), [[100, 400, 512, 3512]]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allocateTable, SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../../../src/format/layer-table.js';
import { damagedParts, gapsOf, selectedSpans } from '../../../src/plan/selected-spans.js';
import { REQUEST_BYTES } from '../../../src/plan/spans.js';
import { type ContentRow, tableOf } from '../../support/layer-tables.js';

/** Contents, each with a header of 512 bytes before it: blob bytes, tar bytes, and how far the next is away in the blob. */
function tableWithGaps(
  ...contents: ReadonlyArray<{ blob: number; tar: number; gap?: number; chunks?: number }>
) {
  const chunks = contents.reduce((sum, content) => sum + (content.chunks ?? 0), 0);
  const table = allocateTable({ count: contents.length, chunks, dataEnd: 2 ** 40, tarBytes: 2 ** 40 });
  let [blobAt, tarAt, chunk] = [0, 0, 0];
  for (const [row, { blob, tar, gap = 100, chunks: own = 0 }] of contents.entries()) {
    tarAt += 512;
    table.blobStart[row] = blobAt;
    table.blobEnd[row] = blobAt + blob;
    table.tarStart[row] = tarAt;
    table.sizeBytes[row] = tar;
    table.chunkFirst[row] = chunk;
    for (let i = 0; i < own; i++, chunk++) {
      table.chunkBlobStart[chunk] = blobAt + (blob / own) * i;
      table.chunkTarStart[chunk] = tarAt + (tar / own) * i;
    }
    table.chunkFirst[row + 1] = chunk;
    blobAt += blob + gap;
    tarAt += tar;
  }
  return { ...table, tarBytes: tarAt + 1024 };
}

const small = { blob: 1000, tar: 3000 };

test('adjacent contents are fetched with the gap between them, others alone', () => {
  const spans = selectedSpans(tableWithGaps(small, small, small, small), [0, 1, 3]);
  assert.deepEqual(spans, [
    { blobStart: 0, blobEnd: 2100, tarStart: 512, tarEnd: 7024 },
    { blobStart: 3300, blobEnd: 4300, tarStart: 11_048, tarEnd: 14_048 },
  ]);
  assert.deepEqual(selectedSpans(tableWithGaps(small), []), []);
});

test('a span ends before it is too long, in the blob or the tar, or before a large gap', () => {
  for (const large of [
    { blob: SPAN_BLOB_BYTES - 500, tar: 2 ** 24 },
    { blob: 1000, tar: SPAN_TAR_BYTES - 2000 },
    { ...small, gap: 2 ** 17 },
  ])
    assert.equal(selectedSpans(tableWithGaps(large, small), [0, 1]).length, 2);
});

test('a content with chunks is cut at them, and nothing is left out', () => {
  const table = tableWithGaps(small, { blob: 4 * SPAN_BLOB_BYTES, tar: 2 ** 27, chunks: 64 }, small);
  const spans = selectedSpans(table, [1]);
  assert.ok(spans.length >= 4);
  assert.deepEqual(
    [spans[0]!.tarStart, spans.at(-1)!.tarEnd],
    [table.tarStart[1], table.tarStart[1]! + 2 ** 27],
  );
  for (const [i, { blobStart, blobEnd, tarStart, tarEnd }] of spans.entries()) {
    assert.ok(blobEnd - blobStart <= SPAN_BLOB_BYTES && tarEnd - tarStart <= SPAN_TAR_BYTES);
    const next = spans[i + 1];
    if (next !== undefined) assert.deepEqual([next.blobStart, next.tarStart], [blobEnd, tarEnd]);
  }
});

test('gaps are the ranges of the tar between contents', () => {
  assert.deepEqual([...gapsOf(tableWithGaps(small, small))], [0, 512, 3512, 4024, 7024, 8048]);
  assert.deepEqual([...gapsOf(tableWithGaps())], [0, 1024]);
});

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

test('adjacent wrong contents are fetched with the gap between them, others alone', () => {
  const { runs, copies } = partsOf(tableWith(['a', 'b', 'c', 'd', 'e', 'f']), [0, 1, 3, 5]);
  assert.deepEqual(runs, [
    [at(0), at(1) + SIZE_BYTES, true],
    [at(3), at(3) + SIZE_BYTES, true],
    [at(5), at(5) + SIZE_BYTES, true],
  ]);
  assert.deepEqual(copies, []);
});

test('contents received in this pull and cached ones are fetched separately', () => {
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

test('bytes between wrong contents are fetched where they cost less than a request', () => {
  const names = Array.from({ length: 400 }, (_, row) => `${row}`);
  const everySecond = names.flatMap((_, row) => (row % 2 === 0 ? [row] : []));
  assert.deepEqual(partsOf(tableWith(names, 1000), everySecond).runs, [[at(0), at(398) + SIZE_BYTES, true]]);
  const { runs } = partsOf(tableWith(['a', 'b', 'c', 'd', 'e'], REQUEST_BYTES / 2), [0, 2, 4]);
  assert.deepEqual(runs, [[at(0), at(4) + SIZE_BYTES, true]]);
});

test('no request includes bytes of the tar that the blob does not have', () => {
  const table = tableWith(['a', 'b', 'c', 'd']);
  table.blobEnd[1] = table.blobStart[2]!;
  assert.deepEqual(partsOf(table, [0, 1, 2, 3]).runs, [
    [at(0), at(1) + SIZE_BYTES, true],
    [at(2), at(3) + SIZE_BYTES, true],
  ]);
});

test('a content that a layer has several times is fetched once', () => {
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

test('a run as long as another content is not a copy of it', () => {
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

test('a content whose first occurrence is not wrong is fetched', () => {
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

test('of a content in chunks the wrong ones are fetched', () => {
  assert.deepEqual(chunkRuns(CHUNKED, [1]), [[200, 300, 1512, 2512]]);
  assert.deepEqual(chunkRuns(CHUNKED, [0, 2]), [[100, 400, 512, 3512]]);
  assert.deepEqual(chunkRuns(CHUNKED, [1, 2]), [[200, 400, 1512, 3512]]);
});

test('a content with a wrong chunk that has no bytes in the blob is fetched completely', () => {
  const chunks = [
    CHUNKED.chunks![0]!,
    { blobStart: 200, tarStart: 1512 },
    { blobStart: 200, tarStart: 2512 },
  ];
  assert.deepEqual(chunkRuns({ ...CHUNKED, chunks }, [1]), [[100, 400, 512, 3512]]);
});

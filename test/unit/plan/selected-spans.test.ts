import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allocateTable, SPAN_BLOB_BYTES, SPAN_TAR_BYTES } from '../../../src/format/layer-table.js';
import { gapsOf, selectedSpans } from '../../../src/plan/selected-spans.js';

/** Contents, each with a header of 512 bytes before it: blob bytes, tar bytes, and how far the next is away in the blob. */
function tableOf(...contents: ReadonlyArray<{ blob: number; tar: number; gap?: number; chunks?: number }>) {
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

test('neighbours come together with what is between them, others alone', () => {
  const spans = selectedSpans(tableOf(small, small, small, small), [0, 1, 3]);
  assert.deepEqual(spans, [
    { blobStart: 0, blobEnd: 2100, tarStart: 512, tarEnd: 7024 },
    { blobStart: 3300, blobEnd: 4300, tarStart: 11_048, tarEnd: 14_048 },
  ]);
  assert.deepEqual(selectedSpans(tableOf(small), []), []);
});

test('a span ends before it is too long, in the blob or the tar, or what is between is', () => {
  for (const large of [
    { blob: SPAN_BLOB_BYTES - 500, tar: 2 ** 24 },
    { blob: 1000, tar: SPAN_TAR_BYTES - 2000 },
    { ...small, gap: 2 ** 17 },
  ])
    assert.equal(selectedSpans(tableOf(large, small), [0, 1]).length, 2);
});

test('a content with chunks is cut at them, and nothing is left out', () => {
  const table = tableOf(small, { blob: 4 * SPAN_BLOB_BYTES, tar: 2 ** 27, chunks: 64 }, small);
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

test('the gaps are what contents leave of the tar', () => {
  assert.deepEqual([...gapsOf(tableOf(small, small))], [0, 512, 3512, 4024, 7024, 8048]);
  assert.deepEqual([...gapsOf(tableOf())], [0, 1024]);
});

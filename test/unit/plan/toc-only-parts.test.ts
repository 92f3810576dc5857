import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planPull, SEGMENT } from '../../../src/plan/plan.js';
import { planLimits } from '../../../src/plan/spans.js';
import { type ContentRow, tableOf, wantOf } from '../../support/layer-tables.js';

const MIB = 2 ** 20;
const LIMITS = { ...planLimits(1), gapBytes: 0, extraShare: 0 };

/** Four chunks of 8 MiB, 4 MiB compressed, behind a gap of 1000 bytes. */
const CHUNKS = [0, 1, 2, 3].map((i) => ({ blobStart: 1000 + i * 4 * MIB, tarStart: 5000 + i * 8 * MIB }));

function large(layout: 'separate-frames' | 'shared-frames') {
  const row: ContentRow = {
    name: 'big',
    blob: [1000, 1000 + 16 * MIB],
    tarStart: 5000,
    sizeBytes: 32 * MIB,
    chunks: CHUNKS,
  };
  return wantOf(
    tableOf([row], 1000 + 16 * MIB + (layout === 'separate-frames' ? 200 : 0), 33 * MIB, { layout }),
  );
}

test('cached chunks are used, the last one only if no gap follows in its frame', () => {
  for (const layout of ['separate-frames', 'shared-frames'] as const) {
    const want = large(layout);
    want.chunkCachedPack.fill(4);
    want.chunkCachedOffset.set([0, 100 * MIB, 200 * MIB, 300 * MIB]);
    const { totals, layers } = planPull([want], LIMITS);
    const { kind, source, sourceOffset, lengthBytes } = layers[0]!.segments;
    const isApart = layout === 'separate-frames';
    assert.deepEqual([...kind], [SEGMENT.span, 1, 1, 1, ...(isApart ? [1] : []), SEGMENT.span]);
    assert.deepEqual([...source.slice(1, 4)], [4, 4, 4]);
    assert.deepEqual([...sourceOffset.slice(1, 4)], [0, 100 * MIB, 200 * MIB]);
    assert.ok(lengthBytes.slice(1, 4).every((bytes) => bytes === 8 * MIB));
    assert.equal(totals.fetchBytes, isApart ? 1200 : 1000 + 4 * MIB);
    assert.equal(totals.reusedBytes, (isApart ? 32 : 24) * MIB);
  }
});

test('the decoded length of headers is estimated by their compressed length, and is never above the allotment', () => {
  const row = (blobStart: number, tarStart: number): ContentRow => ({
    name: blobStart,
    blob: [blobStart, blobStart + 500],
    tarStart,
    sizeBytes: 1000,
  });
  const rows = [row(10, 300), row(1000, 9000), row(2000, 50_000)];
  const apart = planPull([wantOf(tableOf(rows, 2600, 60_000, { layout: 'separate-frames' }))], LIMITS);
  // Gaps: 10 bytes with 300 allotted, 490 bytes, 500 bytes, 100 bytes.
  assert.equal(apart.totals.decodedBytes, 300 + 490 * 8 + 500 * 8 + 100 * 8 + 3 * 1000);
  const frames = [0, 1, 2].map((i): ContentRow => ({ ...rows[i]!, blob: [10 + i * 100, 110 + i * 100] }));
  const within = planPull([wantOf(tableOf(frames, 310, 60_000, { layout: 'shared-frames' }))], LIMITS);
  assert.equal(within.totals.decodedBytes, 300 + 3 * (1000 + 512));
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LayerTable } from '../../../src/format/layer-table.js';
import { planLimits } from '../../../src/plan/limits.js';
import { planPull, type Span } from '../../../src/plan/plan.js';
import { evenTable, tableOf, wantOf } from '../../support/layer-tables.js';

const MIB = 2 ** 20;

test('spans begin large and end small, so that all connections finish together', () => {
  const connections = 8;
  const table = evenTable({
    count: 50_000,
    blobBytes: 8000,
    sizeBytes: 20_000,
    gapBlobBytes: 200,
    gapTarBytes: 512,
  });
  const sizes = spansOf([table], connections).map(blobBytes);
  assert.ok(sizes[0]! > 7.9 * MIB);
  // Guided self-scheduling: never more than this share of what was left, give or take half a content.
  let remaining = table.dataEnd;
  for (const bytes of sizes) {
    assert.ok(bytes <= Math.max(MIB * 2, remaining / (2 * connections)) + 8200, `${bytes} of ${remaining}`);
    assert.ok(bytes > 0.9 * MIB);
    remaining -= bytes;
  }
  assert.ok(sizes.slice(-connections).every((bytes) => bytes <= 1.5 * MIB));
});

test('a run of one large span is cut for as many connections as minSpanBytes allows', () => {
  const table = evenTable({
    count: 1000,
    blobBytes: 8000,
    sizeBytes: 8000,
    gapBlobBytes: 200,
    gapTarBytes: 512,
  });
  assert.equal(spansOf([table], 64).length, 7);
  assert.ok(spansOf([table], 1).length < 7);
});

test('a span ends with a content and the next begins with the gap before one', () => {
  const table = evenTable({
    count: 3000,
    blobBytes: 8000,
    sizeBytes: 8000,
    gapBlobBytes: 200,
    gapTarBytes: 512,
  });
  const spans = spansOf([table], 8);
  for (const span of spans.slice(0, -1)) assert.equal(table.blobEnd[span.endContent - 1], span.blobEnd);
  assert.equal(spans.at(-1)!.blobEnd, table.dataEnd);
});

test('contents that compress well are cut by what they decode to', () => {
  const shape = { count: 100, blobBytes: 1000, sizeBytes: 5 * MIB, gapBlobBytes: 200, gapTarBytes: 512 };
  const spans = spansOf([evenTable(shape)], 1);
  assert.equal(spans.length, 17);
  assert.ok(spans.every((span) => span.tarEnd - span.tarStart <= 32 * MIB));
});

test('a large content is cut at its chunks', () => {
  const chunks = Array.from({ length: 1000 }, (_, i) => ({
    blobStart: 300 + i * 40_000,
    tarStart: 512 + i * 65_536,
  }));
  const sizeBytes = 1000 * 65_536;
  const row = { name: 'big', blob: [300, 40_000_300], tarStart: 512, sizeBytes, chunks } as const;
  const spans = spansOf([tableOf([row], 40_000_600, 512 + sizeBytes + 1024)], 4);
  assert.ok(spans.length > 4);
  const starts = new Map(chunks.map((chunk) => [chunk.blobStart, chunk.tarStart]));
  for (const span of spans.slice(1)) assert.equal(starts.get(span.blobStart), span.tarStart);
  assert.ok(
    spans.every((span) => blobBytes(span) <= 8 * MIB && span.firstContent === 0 && span.endContent === 1),
  );
});

test('a large content without chunks is one span of its own with the gaps around it', () => {
  const table = tableOf(
    [
      { name: 'a', blob: [200, 900_200], tarStart: 512, sizeBytes: 900_000 },
      { name: 'big', blob: [900_400, 100_900_400], tarStart: 901_120, sizeBytes: 200 * MIB },
      { name: 'b', blob: [100_900_600, 101_800_600], tarStart: 902_144 + 200 * MIB, sizeBytes: 900_000 },
    ],
    101_800_800,
    902_144 + 201 * MIB,
  );
  assert.deepEqual(
    spansOf([table], 8).map((span) => [span.blobStart, span.blobEnd, span.firstContent, span.endContent]),
    [
      [0, 900_200, 0, 1],
      [900_200, 100_900_400, 1, 2],
      [100_900_400, 101_800_800, 2, 3],
    ],
  );
});

test('the last gap comes along with a large content without chunks', () => {
  const row = { name: 'big', blob: [200, 50_000_200], tarStart: 512, sizeBytes: 100 * MIB } as const;
  assert.equal(spansOf([tableOf([row], 50_000_400, 102 * MIB)], 8).length, 1);
});

test('a content of exactly the limit leaves its gap to the span before it', () => {
  const table = tableOf(
    [
      { name: 'a', blob: [200, 4200], tarStart: 512, sizeBytes: 4096 },
      { name: 'limit', blob: [4400, 4400 + MIB], tarStart: 5120, sizeBytes: 32 * MIB },
    ],
    4400 + MIB,
    5120 + 32 * MIB,
  );
  assert.deepEqual(
    spansOf([table], 8).map((span) => [span.tarStart, span.tarEnd]),
    [
      [0, 5120],
      [5120, 5120 + 32 * MIB],
    ],
  );
});

test('no crumb is a request of its own: neither a small content nor the last gap', () => {
  assert.equal(spansOf([tableOfBlobs([2.5 * MIB], 300)], 8).length, 1);
  assert.equal(spansOf([tableOfBlobs([0.3 * MIB, 2.2 * MIB], 0)], 8).length, 1);
});

test('a content joins a span when that brings it nearer to its target', () => {
  const size = 1.25 * MIB;
  assert.equal(spansOf([tableOfBlobs([size, size, size, size], 0)], 8).length, 4);
  const half = size / 2;
  assert.equal(spansOf([tableOfBlobs([half, half, half, half, half, half, half, half], 0)], 8).length, 4);
});

test('a run a little above the limit becomes two halves, not a large span and a crumb', () => {
  const even = { count: 9000, blobBytes: 1000, sizeBytes: 1000, gapBlobBytes: 0, gapTarBytes: 0 };
  const rest = { ...even, count: 90_000, firstName: 9000 };
  const [first, second, third] = spansOf([evenTable(even), evenTable(rest)], 2);
  assert.deepEqual([blobBytes(first!), blobBytes(second!), third!.layer], [4_500_000, 4_500_000, 1]);
});

/** Contents of these blob bytes one behind the other, then a gap. */
function tableOfBlobs(sizes: readonly number[], lastGapBytes: number): LayerTable {
  let blob = 0;
  const rows = sizes.map((bytes, name) => {
    blob = Math.floor(blob + bytes);
    const blobStart = blob - Math.floor(bytes);
    return { name, blob: [blobStart, blob] as const, tarStart: blobStart, sizeBytes: blob - blobStart };
  });
  return tableOf(rows, blob + lastGapBytes, blob + lastGapBytes * 2);
}

function spansOf(tables: readonly LayerTable[], connections: number): readonly Span[] {
  const wants = tables.map((table) => wantOf(table));
  return planPull(wants, planLimits(connections)).spans;
}

function blobBytes(span: Span): number {
  return span.blobEnd - span.blobStart;
}

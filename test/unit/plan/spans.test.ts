import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LayerTable } from '../../../src/format/layer-table.js';
import { planPull, type Span } from '../../../src/plan/plan.js';
import { planLimits } from '../../../src/plan/spans.js';
import { type ContentRow, evenTable, tableOf, wantOf } from '../../support/layer-tables.js';

/** However much is wanted: most of the tests want all of it. */
const LIMITS = { ...planLimits(8), mostlyMissingShare: 2 };

/** Contents of 100,000 bytes with these blob distances before each and after the last, one tar header before each. */
function spaced(distances: readonly number[], firstName = 0) {
  const contents: ContentRow[] = [];
  let blob = 0;
  for (const [i, bytes] of distances.slice(0, -1).entries()) {
    const start = blob + bytes;
    const tarStart = i * 100_864 + 512;
    contents.push({ name: firstName + i, blob: [start, start + 100_000], tarStart, sizeBytes: 100_000 });
    blob = start + 100_000;
  }
  return tableOf(contents, blob + distances.at(-1)!, contents.length * 100_864 + 1024);
}

function rangesOf(...tables: ReturnType<typeof spaced>[]) {
  const { spans } = planPull(
    tables.map((table) => wantOf(table)),
    LIMITS,
  );
  return spans.map((span) => [span.layer, span.blobStart, span.blobEnd]);
}

test('a distance of 1 KiB is always fetched, one byte more counts against the budget', () => {
  // Budget: 3 percent of 300,000, used up by 9000.
  assert.deepEqual(rangesOf(spaced([0, 1024, 9000, 0])), [[0, 0, 310_024]]);
  assert.deepEqual(rangesOf(spaced([0, 1025, 9000, 0])), [
    [0, 0, 201_025],
    [0, 210_025, 310_025],
  ]);
});

test('larger distances are fetched smallest first over all layers', () => {
  // Budget 15,000: 2000 and 4000 fit, 9001 no more.
  assert.deepEqual(rangesOf(spaced([0, 9001, 0]), spaced([0, 4000, 0], 10), spaced([2000, 0], 20)), [
    [0, 0, 100_000],
    [0, 109_001, 209_001],
    [1, 0, 204_000],
    [2, 0, 102_000],
  ]);
});

test('of equal distances the earlier are fetched', () => {
  // Budget 9000: two of the three.
  assert.deepEqual(rangesOf(spaced([4000, 4000, 4000, 0])), [
    [0, 0, 208_000],
    [0, 212_000, 312_000],
  ]);
});

test('the ends of a layer follow the same rule', () => {
  assert.deepEqual(rangesOf(spaced([1024, 1024])), [[0, 0, 102_048]]);
  assert.deepEqual(rangesOf(spaced([3001, 1500])), [[0, 3001, 104_501]]);
});

test('a distance includes cached contents and their gaps', () => {
  const table = spaced([0, 200, 200, 0]);
  // The middle content makes it 100,400 bytes.
  assert.equal(planPull([wantOf(table, { held: [1] })], LIMITS).spans.length, 2);
  const rich = { ...LIMITS, extraShare: 0.6 };
  const plan = planPull([wantOf(table, { held: [1] })], rich);
  assert.deepEqual([plan.spans.length, plan.totals.reusedBytes], [1, 0]);
});

test('no span includes tar bytes that have no blob bytes', () => {
  const row = (name: string, blob: number, tarStart: number) =>
    ({ name, blob: [blob, blob + 500], tarStart, sizeBytes: 600 }) as const;
  const table = tableOf([row('a', 0, 512), row('b', 500, 1536)], 1000, 3072);
  const plan = planPull([wantOf(table)], LIMITS);
  assert.deepEqual(
    plan.spans.map((span) => [span.tarStart, span.tarEnd]),
    [
      [512, 1112],
      [1536, 2136],
    ],
  );
  assert.equal(plan.totals.inlineBytes, 3072 - 1200);
});

test('in a mostly missing layer, distances up to the cost of a request are fetched', () => {
  const limits = planLimits(8);
  const most = limits.requestBytes;
  const table = spaced([0, most, most + 1, 100_000, 0]);
  // Held are the last two of four contents, of 100,000 bytes each; half of what is not a gap is wanted.
  for (const [held, end] of [
    [[2, 3], 1],
    [[1, 2, 3], 0],
  ] as const) {
    const plan = planPull([wantOf(table, { held })], {
      ...limits,
      mostlyMissingShare: end === 1 ? 0.3 : 0.5,
      extraShare: 0,
    });
    const wanted = table.blobEnd[end]!;
    assert.deepEqual(
      plan.spans.map(({ blobStart, blobEnd }) => [blobStart, blobEnd]),
      [[0, wanted]],
    );
  }
  const scattered = planPull([wantOf(table, { held: [1] })], {
    ...limits,
    mostlyMissingShare: 0.9,
    extraShare: 0,
  });
  assert.equal(scattered.spans.length, 3);
  const together = planPull([wantOf(spaced([0, 10, 10, 0]), { held: [] })], limits);
  assert.equal(together.spans.length, 1);
});

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
  for (const span of spans.slice(0, -1)) assert.ok(table.blobEnd.includes(span.blobEnd));
  assert.equal(spans.at(-1)!.blobEnd, table.dataEnd);
});

test('contents that compress well are cut by their decoded length', () => {
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
  assert.ok(spans.every((span) => blobBytes(span) <= 8 * MIB));
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
    spansOf([table], 8).map((span) => [span.blobStart, span.blobEnd]),
    [
      [0, 900_200],
      [900_200, 100_900_400],
      [100_900_400, 101_800_800],
    ],
  );
});

test('the last gap is fetched with a large content without chunks', () => {
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

test('neither a small content nor the last gap is a request of its own', () => {
  assert.equal(spansOf([tableOfBlobs([2.5 * MIB], 300)], 8).length, 1);
  assert.equal(spansOf([tableOfBlobs([0.3 * MIB, 2.2 * MIB], 0)], 8).length, 1);
});

test('a content joins a span when that brings it nearer to its target', () => {
  const size = 1.25 * MIB;
  assert.equal(spansOf([tableOfBlobs([size, size, size, size], 0)], 8).length, 4);
  const half = size / 2;
  assert.equal(spansOf([tableOfBlobs([half, half, half, half, half, half, half, half], 0)], 8).length, 4);
});

test('a run a little above the limit becomes two halves, not a large and a tiny span', () => {
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

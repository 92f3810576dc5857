import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DIGEST_BYTES } from '../../../src/format/digest.js';
import { allocateTable } from '../../../src/format/layer-table.js';
import { findFirstOccurrences, planPull, SEGMENT } from '../../../src/plan/plan.js';
import { planLimits } from '../../../src/plan/spans.js';
import { evenTable, tableOf, wantOf } from '../../support/layer-tables.js';
import { seededRandom } from '../../support/random.js';

const LIMITS = planLimits(8);
const MIB = 2 ** 20;

/** Files of 10 kB, 4 kB compressed, with the gaps that writers leave. */
const SMALL_FILES = { blobBytes: 4000, sizeBytes: 10_240, gapBlobBytes: 250, gapTarBytes: 512 };

test('an image without layers needs nothing', () => {
  const plan = planPull([], LIMITS);
  assert.deepEqual([plan.spans.length, plan.layers.length, plan.totals.fetchBytes], [0, 0, 0]);
});

test('a cold pull fetches the complete data part of every layer, and nothing is inline', () => {
  const tables = [
    evenTable({ count: 5000, ...SMALL_FILES }),
    evenTable({ count: 300, ...SMALL_FILES, firstName: 5000 }),
  ];
  const plan = planPull(
    tables.map((table) => wantOf(table)),
    LIMITS,
  );
  assert.equal(
    plan.totals.fetchBytes,
    tables.reduce((sum, table) => sum + table.dataEnd, 0),
  );
  assert.equal(plan.totals.inlineBytes, 0);
  for (const [layer, { segments, firstSpan }] of plan.layers.entries()) {
    assert.ok(segments.kind.every((kind) => kind === SEGMENT.span));
    assert.equal(plan.spans[firstSpan]!.blobStart, 0);
    assert.equal(plan.spans[firstSpan]!.tarStart, 0);
    const last = plan.spans[plan.layers[layer]!.endSpan - 1]!;
    assert.equal(last.blobEnd, tables[layer]!.dataEnd);
    assert.equal(last.tarEnd, tables[layer]!.tarBytes);
  }
});

test('a completely cached layer has no spans, only cached and inline segments', () => {
  const table = evenTable({ count: 10, ...SMALL_FILES });
  const plan = planPull([wantOf(table, { held: [...Array(10).keys()] })], LIMITS);
  assert.equal(plan.spans.length, 0);
  assert.equal(plan.totals.reusedBytes, 10 * 10_240);
  assert.equal(plan.totals.inlineBytes, table.tarBytes - 10 * 10_240);
  assert.deepEqual(
    [...plan.layers[0]!.segments.kind.slice(0, 3)],
    [SEGMENT.inline, SEGMENT.cached, SEGMENT.inline],
  );
  assert.equal(plan.layers[0]!.segments.sourceOffset[1], table.tarStart[0]! * 2);
});

test('a layer of empty files and directories is inline', () => {
  const plan = planPull([wantOf(tableOf([], 900, 20_480))], LIMITS);
  assert.deepEqual({ ...plan.totals, inlineBytes: 0 }, { ...planPull([], LIMITS).totals });
  assert.equal(plan.totals.inlineBytes, 20_480);
  assert.equal(plan.layers[0]!.segments.count, 1);
});

test('a layer of no bytes has no segments', () => {
  const plan = planPull([wantOf(tableOf([], 0, 0))], LIMITS);
  assert.equal(plan.layers[0]!.segments.count, 0);
});

test('an update of scattered small files fetches little more than the missing bytes', () => {
  const count = 20_000;
  const random = seededRandom(7);
  const table = evenTable({ count, ...SMALL_FILES });
  const held = [...Array(count).keys()].filter(() => !random.chance(0.02));
  const plan = planPull([wantOf(table, { held })], LIMITS);
  const wantedBytes = (count - held.length) * SMALL_FILES.blobBytes;
  // Gaps up to 1 KiB between neighbours, and 3 percent for larger distances.
  assert.ok(plan.totals.fetchBytes <= wantedBytes * 1.05, `${plan.totals.fetchBytes / wantedBytes}`);
  assert.ok(plan.totals.fetchBytes > wantedBytes);
  assert.ok(plan.totals.requests < count - held.length);
});

test('a content that occurs before in the same layer is fetched once', () => {
  const table = tableOf(
    [
      { name: 'a', blob: [0, 9000], tarStart: 512, sizeBytes: 10_000 },
      { name: 'a', blob: [9200, 18_200], tarStart: 11_264, sizeBytes: 10_000 },
    ],
    18_300,
    22_528,
  );
  const plan = planPull([wantOf(table)], LIMITS);
  assert.deepEqual([plan.totals.requests, plan.totals.copiedBytes], [1, 10_000]);
  const { segments } = plan.layers[0]!;
  const row = segments.kind.indexOf(SEGMENT.copy);
  assert.deepEqual(
    [segments.source[row], segments.sourceOffset[row], segments.tarStart[row]],
    [0, 512, 11_264],
  );
});

test('the same digest with another size is another content', () => {
  const table = tableOf(
    [
      { name: 'a', blob: [0, 9000], tarStart: 512, sizeBytes: 10_000 },
      { name: 'a', blob: [9000, 18_000], tarStart: 11_264, sizeBytes: 9999 },
    ],
    18_000,
    22_528,
  );
  assert.equal(planPull([wantOf(table)], LIMITS).totals.copiedBytes, 0);
});

test('a second occurrence of a cached content is the same cached segment', () => {
  const row = { name: 'a', blob: [100, 9000], tarStart: 512, sizeBytes: 10_000 } as const;
  const table = tableOf([row], 9000, 10_752);
  const plan = planPull([wantOf(table, { held: [0] }), wantOf(table)], LIMITS);
  assert.deepEqual([plan.spans.length, plan.totals.reusedBytes, plan.totals.copiedBytes], [0, 20_000, 0]);
  assert.deepEqual(plan.layers[1]!.segments, plan.layers[0]!.segments);
});

test('a small copy between missing contents is fetched with them', () => {
  const row = (name: string, at: number) =>
    ({ name, blob: [at * 500, at * 500 + 400], tarStart: at * 1024 + 512, sizeBytes: 512 }) as const;
  const table = tableOf([row('a', 0), row('b', 1), row('a', 2), row('c', 3)], 2000, 5120);
  const plan = planPull([wantOf(table)], LIMITS);
  assert.deepEqual([plan.totals.requests, plan.totals.copiedBytes, plan.totals.fetchBytes], [1, 0, 2000]);
});

test('only the missing chunks of a large content are fetched', () => {
  const chunks = [0, 1, 2, 3].map((i) => ({ blobStart: i * 4 * MIB, tarStart: 512 + i * 8 * MIB }));
  const row = { name: 'big', blob: [0, 16 * MIB], tarStart: 512, sizeBytes: 32 * MIB, chunks } as const;
  const want = wantOf(tableOf([row], 16 * MIB, 33 * MIB));
  want.chunkCachedPack.set([4, 4], 1);
  want.chunkCachedOffset.set([1000, 1000 + 8 * MIB], 1);
  const plan = planPull([want], planLimits(1));
  const { segments } = plan.layers[0]!;
  assert.deepEqual(
    [...segments.kind],
    [SEGMENT.inline, SEGMENT.span, SEGMENT.cached, SEGMENT.span, SEGMENT.inline],
  );
  assert.deepEqual([segments.source[2], segments.sourceOffset[2]], [4, 1000]);
  assert.deepEqual([plan.totals.reusedBytes, plan.totals.fetchBytes], [16 * MIB, 8 * MIB]);
  assert.deepEqual(
    plan.spans.map((span) => span.tarStart),
    [512, 512 + 24 * MIB],
  );
});

test('a content is not cut at chunk rows that do not ascend', () => {
  const chunks = [
    { blobStart: 0, tarStart: 0 },
    { blobStart: 12 * MIB, tarStart: 8 * MIB },
    { blobStart: 12 * MIB, tarStart: 16 * MIB },
  ];
  const row = { name: 'big', blob: [0, 16 * MIB], tarStart: 0, sizeBytes: 32 * MIB, chunks } as const;
  const plan = planPull([wantOf(tableOf([row], 16 * MIB, 32 * MIB))], LIMITS);
  assert.deepEqual([plan.spans.length, plan.spans[0]!.blobEnd], [1, 16 * MIB]);
});

test('an image of many contents costs a few megabytes of rows, whatever is cached', () => {
  const count = 120_000;
  const table = evenTable({ count, ...SMALL_FILES });
  const held = [...Array(count / 2).keys()].map((i) => i * 2);
  const { segments } = planPull([wantOf(table, { held })], LIMITS).layers[0]!;
  const bytes = [segments.kind, segments.tarStart, segments.source, segments.sourceOffset].reduce(
    (sum, rows) => sum + rows.byteLength,
    0,
  );
  assert.ok(segments.count > count);
  assert.ok(bytes < 6e6, `${bytes} bytes`);
});

/** A table with the digests that `fill` writes; nothing else in it matters here. */
function tableOfDigests(count: number, fill: (digest: Uint8Array, row: number) => void) {
  const table = allocateTable({ count, chunks: 0, dataEnd: 0, tarBytes: 0 });
  for (let row = 0; row < count; row++) {
    fill(table.digests.subarray(row * DIGEST_BYTES, (row + 1) * DIGEST_BYTES), row);
    table.sizeBytes[row] = 5;
  }
  return table;
}

test('every later occurrence points at the first, over all layers', () => {
  const random = seededRandom(3);
  const names = Array.from({ length: 5000 }, () => random.int(0, 2000));
  const fill = (digest: Uint8Array, name: number) => {
    for (let i = 0; i < DIGEST_BYTES; i++) digest[i] = (Math.imul(name + 1, 0x9e3779b1 + i * 2) >>> 13) & 255;
    digest[9] = name & 255;
    digest[10] = name >> 8;
  };
  const tables = [0, 2000, 2000].map((start, i) =>
    tableOfDigests([2000, 0, 3000][i]!, (digest, row) => fill(digest, names[start + row]!)),
  );
  const found = findFirstOccurrences(tables);
  for (const [at, name] of names.entries()) {
    const [layer, row] = at < 2000 ? [0, at] : [2, at - 2000];
    const first = names.indexOf(name);
    assert.equal(found[layer]!.layer[row], first === at ? -1 : first < 2000 ? 0 : 2);
    if (first !== at) assert.equal(found[layer]!.row[row], first < 2000 ? first : first - 2000);
  }
});

test('digests forged to share their first bytes end the search early, and results stay right', () => {
  const table = tableOfDigests(20_000, (digest, row) => {
    new DataView(digest.buffer, digest.byteOffset).setUint32(20, row >> 1);
  });
  const [found] = findFirstOccurrences([table]);
  let pairs = 0;
  for (let row = 0; row < table.count; row++) {
    if (found!.layer[row] === -1) continue;
    assert.equal(found!.row[row], row - 1);
    pairs++;
  }
  // Only the first few find a slot; for the others nothing is known, and nothing is wrong.
  assert.ok(pairs > 0 && pairs <= 128, `${pairs}`);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planLimits } from '../../../src/plan/limits.js';
import { planPull } from '../../../src/plan/plan.js';
import { type ContentRow, tableOf, wantOf } from '../../support/layer-tables.js';

/** However much is wanted: most of the tests want all of it. */
const LIMITS = { ...planLimits(8), mostShare: 2 };

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

test('a distance of 1 KiB is fetched over whatever else is, one byte more costs of the budget', () => {
  // Budget: 3 percent of 300,000, used up by 9000.
  assert.deepEqual(rangesOf(spaced([0, 1024, 9000, 0])), [[0, 0, 310_024]]);
  assert.deepEqual(rangesOf(spaced([0, 1025, 9000, 0])), [
    [0, 0, 201_025],
    [0, 210_025, 310_025],
  ]);
});

test('larger distances are fetched over smallest first over all layers', () => {
  // Budget 15,000: 2000 and 4000 fit, 9001 no more.
  assert.deepEqual(rangesOf(spaced([0, 9001, 0]), spaced([0, 4000, 0], 10), spaced([2000, 0], 20)), [
    [0, 0, 100_000],
    [0, 109_001, 209_001],
    [1, 0, 204_000],
    [2, 0, 102_000],
  ]);
});

test('of equal distances the earlier are fetched over', () => {
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

test('a distance goes over held contents and their gaps alike', () => {
  const table = spaced([0, 200, 200, 0]);
  // The middle content makes it 100,400 bytes.
  assert.equal(planPull([wantOf(table, { held: [1] })], LIMITS).spans.length, 2);
  const rich = { ...LIMITS, extraShare: 0.6 };
  const plan = planPull([wantOf(table, { held: [1] })], rich);
  assert.deepEqual([plan.spans.length, plan.totals.reusedBytes], [1, 0]);
});

test('no span runs over tar bytes that have no blob bytes', () => {
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

test('where most of a layer is wanted, distances up to the cost of a request are fetched over', () => {
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
      mostShare: end === 1 ? 0.3 : 0.5,
      extraShare: 0,
    });
    const wanted = table.blobEnd[end]!;
    assert.deepEqual(
      plan.spans.map(({ blobStart, blobEnd }) => [blobStart, blobEnd]),
      [[0, wanted]],
    );
  }
  const scattered = planPull([wantOf(table, { held: [1] })], { ...limits, mostShare: 0.9, extraShare: 0 });
  assert.equal(scattered.spans.length, 3);
  const together = planPull([wantOf(spaced([0, 10, 10, 0]), { held: [] })], limits);
  assert.equal(together.spans.length, 1);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ResumedPiece } from '../../../src/plan/layer-parts.js';
import { planPull, SEGMENT } from '../../../src/plan/plan.js';
import { planLimits } from '../../../src/plan/spans.js';
import { tableOf, wantOf } from '../../support/layer-tables.js';

const LIMITS = planLimits(8);

// gap [0, 100) tar [0, 512); a [100, 1100) tar [512, 2512); gap [1100, 1200) tar [2512, 3072);
// b [1200, 2200) tar [3072, 5072); gap [2200, 2300) tar [5072, 6144)
const TABLE = tableOf(
  [
    { name: 'a', blob: [100, 1100], tarStart: 512, sizeBytes: 2000 },
    { name: 'b', blob: [1200, 2200], tarStart: 3072, sizeBytes: 2000 },
  ],
  2300,
  6144,
);

function piece(blobStart: number, blobEnd: number, tarStart: number, tarEnd: number): ResumedPiece {
  return {
    blobStart,
    blobEnd,
    tarStart,
    lengthBytes: tarEnd - tarStart,
    pack: 3,
    packOffset: 70_000 + tarStart,
  };
}

function planWith(resumed: readonly ResumedPiece[], held: readonly number[] = []) {
  return planPull([wantOf(TABLE, { resumed, held })], LIMITS);
}

test('after a piece that ends inside a content, the remainder of the content is fetched', () => {
  const plan = planWith([piece(0, 600, 0, 1500)]);
  assert.deepEqual(
    plan.spans.map((span) => [span.blobStart, span.blobEnd, span.tarStart]),
    [[600, 2300, 1500]],
  );
  assert.deepEqual([plan.totals.resumedBytes, plan.totals.fetchBytes], [1500, 1700]);
  const { segments } = plan.layers[0]!;
  assert.deepEqual(
    [segments.kind[0], segments.source[0], segments.sourceOffset[0]],
    [SEGMENT.cached, 3, 70_000],
  );
});

test('a span never runs over a resumed piece, however small', () => {
  const plan = planWith([piece(1100, 1150, 2512, 2600)]);
  assert.deepEqual(
    plan.spans.map((span) => [span.blobStart, span.blobEnd]),
    [
      [0, 1100],
      [1150, 2300],
    ],
  );
});

test('a resumed piece replaces its part of a cached content', () => {
  const plan = planWith([piece(1150, 1300, 3000, 3200)], [0, 1]);
  assert.deepEqual(
    [plan.spans.length, plan.totals.resumedBytes, plan.totals.reusedBytes],
    [0, 200, 2000 + 1872],
  );
  const { segments } = plan.layers[0]!;
  const rest = segments.tarStart.indexOf(3200);
  // cachedOffset of b is twice its tar offset.
  assert.deepEqual([segments.source[rest], segments.sourceOffset[rest]], [0, 6144 + 128]);
});

test('adjacent pieces of a pack become one segment', () => {
  const plan = planWith([
    piece(0, 600, 0, 1500),
    piece(600, 1200, 1500, 3072),
    piece(1200, 2300, 3072, 6144),
  ]);
  assert.deepEqual([plan.spans.length, plan.layers[0]!.segments.count], [0, 1]);
  assert.equal(plan.totals.resumedBytes, 6144);
});

test('a frame that decodes to nothing is not fetched', () => {
  const plan = planWith([piece(0, 1090, 0, 2512), piece(1100, 2300, 2512, 6144)]);
  assert.equal(plan.spans.length, 0);
});

test('a piece that contradicts the table is not used', () => {
  const wrong: [string, ResumedPiece][] = [
    ['tar start at a content', piece(100, 1100, 513, 2512)],
    ['tar end at a content', piece(100, 1100, 512, 2511)],
    ['tar start before the content it cuts', piece(600, 1100, 511, 2512)],
    ['tar end behind the content it cuts', piece(100, 600, 512, 2513)],
    ['tar start in another gap', piece(1150, 1200, 2500, 3072)],
    ['end of the data', piece(2200, 2300, 5072, 6000)],
    ['behind the data', piece(2200, 2301, 5072, 6144)],
    ['before the blob', piece(-5, 100, 0, 512)],
    ['no bytes', piece(100, 100, 512, 512)],
    ['backwards', piece(1100, 600, 1500, 2512)],
    ['negative length', piece(600, 700, 1500, 1400)],
    ['a fraction', piece(600, 700.5, 1500, 1600)],
    ['not a number', piece(600, 700, Number.NaN, 1600)],
  ];
  const cold = planWith([]);
  for (const [name, one] of wrong) assert.deepEqual(planWith([one]), cold, name);
});

test('of pieces that contradict each other the first is used', () => {
  const first = piece(0, 600, 0, 1500);
  const expected = planWith([first]);
  for (const second of [
    piece(500, 1100, 1400, 2512),
    piece(600, 1100, 1501, 2512),
    piece(700, 1100, 1499, 2512),
  ]) {
    assert.deepEqual(planWith([first, second]), expected);
  }
  assert.equal(planWith([first, piece(700, 1100, 1501, 2512)]).totals.resumedBytes, 1500 + 1011);
});

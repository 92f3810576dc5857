import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eachSegmentIn, type Segments, segmentAt } from '../../../src/plan/segments.js';

const SEGMENTS: Segments = {
  count: 3,
  kind: new Uint8Array(3),
  tarStart: Float64Array.of(0, 10, 11, 30),
  source: new Int32Array(3),
  sourceOffset: new Float64Array(3),
  lengthBytes: Float64Array.of(10, 1, 19),
};

function partsOf(start: number, end: number): number[][] {
  const parts: number[][] = [];
  eachSegmentIn(SEGMENTS, start, end, (row, from, to) => parts.push([row, from, to]));
  return parts;
}

test('the segment of a tar offset is the one that has that byte', () => {
  const rows = [-1, 0, 9, 10, 11, 29, 30, 31].map((offset) => segmentAt(SEGMENTS, offset));
  assert.deepEqual(rows, [-1, 0, 0, 1, 2, 2, -1, -1]);
  const none = { ...SEGMENTS, count: 0, tarStart: Float64Array.of(0) };
  assert.equal(segmentAt(none, 0), -1);
});

test('a part of the tar is visited segment by segment, clipped at both ends', () => {
  assert.deepEqual(partsOf(4, 20), [
    [0, 4, 10],
    [1, 10, 11],
    [2, 11, 20],
  ]);
  assert.deepEqual(partsOf(10, 11), [[1, 10, 11]]);
  assert.deepEqual(partsOf(29, 99), [[2, 29, 30]]);
  assert.deepEqual(partsOf(10, 10), []);
  assert.deepEqual(partsOf(30, 40), []);
});

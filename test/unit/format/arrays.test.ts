import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countPieces, cutRanges, joinRanges, lengthOf, missingRanges } from '../../../src/format/arrays.js';

const range = (start: number, end: number) => ({ start, end });

test('ranges that touch or overlap become one, in order', () => {
  const joined = joinRanges([range(5, 7), range(0, 2), range(6, 9), range(2, 3), range(1, 2)]);
  assert.deepEqual(joined, [range(0, 3), range(5, 9)]);
  assert.equal(lengthOf(joined), 7);
  assert.deepEqual(joinRanges([]), []);
});

test('missing ranges are cut, and make up everything together with the present ones', () => {
  const there = [range(3, 5), range(4, 8), range(20, 25)];
  const missing = missingRanges(25, there);
  assert.deepEqual(missing, [range(0, 3), range(8, 20)]);
  const pieces = [...cutRanges(missing, 5)];
  assert.deepEqual(pieces, [range(0, 3), range(8, 13), range(13, 18), range(18, 20)]);
  assert.equal(countPieces(missing, 5), pieces.length);
  assert.deepEqual(joinRanges([...there, ...pieces]), [range(0, 25)]);
  assert.deepEqual(missingRanges(0, []), []);
  assert.deepEqual(missingRanges(4, [range(0, 4)]), []);
  assert.deepEqual([...cutRanges(missingRanges(11, []), 5)], [range(0, 5), range(5, 10), range(10, 11)]);
});

test('pieces are made lazily, and counted without making any', () => {
  const all = [range(0, 2 ** 53 - 1)];
  assert.deepEqual(cutRanges(all, 8).next().value, range(0, 8));
  assert.equal(countPieces(all, 8), 2 ** 50);
});

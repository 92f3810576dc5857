import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joinRanges, lengthOf, missingRanges } from '../../../src/plan/missing.js';

const range = (start: number, end: number) => ({ start, end });

test('ranges that touch or overlap become one, in order', () => {
  const joined = joinRanges([range(5, 7), range(0, 2), range(6, 9), range(2, 3), range(1, 2)]);
  assert.deepEqual(joined, [range(0, 3), range(5, 9)]);
  assert.equal(lengthOf(joined), 7);
  assert.deepEqual(joinRanges([]), []);
});

test('what is missing is cut, and with what is there makes up the whole', () => {
  const there = [range(3, 5), range(4, 8), range(20, 25)];
  const missing = missingRanges(25, there, 5);
  assert.deepEqual(missing, [range(0, 3), range(8, 13), range(13, 18), range(18, 20)]);
  assert.deepEqual(joinRanges([...there, ...missing]), [range(0, 25)]);
  assert.deepEqual(missingRanges(0, [], 5), []);
  assert.deepEqual(missingRanges(4, [range(0, 4)], 5), []);
  assert.deepEqual(missingRanges(11, [], 5), [range(0, 5), range(5, 10), range(10, 11)]);
});

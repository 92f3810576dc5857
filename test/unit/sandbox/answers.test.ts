import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contentRange, parseRange } from '../../../src/sandbox/answers.js';

const CASES: readonly (readonly [string, number, ReturnType<typeof parseRange>])[] = [
  ['bytes=0-0', 10, { start: 0, end: 1 }],
  ['bytes=2-5', 10, { start: 2, end: 6 }],
  ['bytes=2-99', 10, { start: 2, end: 10 }],
  ['bytes=9-', 10, { start: 9, end: 10 }],
  ['bytes=-3', 10, { start: 7, end: 10 }],
  ['bytes=-99', 10, { start: 0, end: 10 }],
  ['bytes=10-', 10, 'unsatisfiable'],
  ['bytes=10-11', 10, 'unsatisfiable'],
  ['bytes=-0', 10, 'unsatisfiable'],
  ['bytes=0-', 0, 'unsatisfiable'],
  ['bytes=5-2', 10, undefined],
  ['bytes=-', 10, undefined],
  ['bytes=0-1,3-4', 10, undefined],
  ['items=0-1', 10, undefined],
];

for (const [header, sizeBytes, range] of CASES) {
  test(`${header} of ${sizeBytes} bytes is ${JSON.stringify(range) ?? 'no range'}`, () => {
    assert.deepEqual(parseRange(header, sizeBytes), range);
  });
}

test('Content-Range is inclusive', () => {
  assert.equal(contentRange({ start: 2, end: 6 }, 10), 'bytes 2-5/10');
});

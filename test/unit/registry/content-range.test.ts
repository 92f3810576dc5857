import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseContentLength, parseContentRange, rangeHeader } from '../../../src/registry/content-range.js';

test('a content range becomes half-open', () => {
  assert.deepEqual(parseContentRange('bytes 10-19/100'), { range: { start: 10, end: 20 }, sizeBytes: 100 });
  assert.deepEqual(parseContentRange('Bytes 0-0/*'), { range: { start: 0, end: 1 }, sizeBytes: undefined });
  assert.deepEqual(parseContentRange('bytes */100'), { range: undefined, sizeBytes: 100 });
});

test('what is no content range is undefined', () => {
  for (const header of [
    undefined,
    '',
    'bytes',
    'bytes */*',
    'bytes 5-4/10',
    'bytes 0-10/10',
    'bytes -1-3/10',
    'bytes 0-9/10, bytes 0-9/10',
    'items 0-9/10',
    'bytes 0-9999999999999999/*',
    'bytes 0-9/9999999999999999',
    'bytes 0x1-9/10',
  ]) {
    assert.equal(parseContentRange(header), undefined, header);
  }
});

test('a range header is inclusive', () => {
  assert.equal(rangeHeader(0, 1), 'bytes=0-0');
  assert.equal(rangeHeader(10, 20), 'bytes=10-19');
});

test('a content length is a number, NaN or nothing', () => {
  assert.equal(parseContentLength('12'), 12);
  assert.equal(parseContentLength(undefined), undefined);
  for (const header of ['', '-1', '1.5', '1e3', '9999999999999999', '5, 5']) {
    assert.ok(Number.isNaN(parseContentLength(header)), header);
  }
});

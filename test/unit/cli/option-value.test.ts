import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeNumber, readNumber } from '../../../src/cli/option-value.js';
import type { NumberRule } from '../../../src/cli/options.js';

const BYTES: NumberRule = { kind: 'bytes', min: 1, max: Number.MAX_SAFE_INTEGER };
const WHOLE: NumberRule = { kind: 'whole', min: 0, max: 65_535 };
const SECONDS: NumberRule = { kind: 'decimal', min: 0.001, max: 60, unit: 'seconds' };

test('sizes take K, M and G as powers of 1024', () => {
  const read = ['1', '10K', '20M', '3G', '1.5M', '2k'].map((text) => readNumber(text, BYTES));
  assert.deepEqual(read, [1, 10_240, 20_971_520, 3_221_225_472, 1_572_864, 2048]);
});

test('sizes of another form, of nothing or beyond what a number holds are refused', () => {
  for (const text of [
    '',
    '0',
    'M',
    '-1',
    '1MB',
    '1 M',
    '1e3',
    '0x10',
    '1T',
    '9999999999999999',
    '999999999999G',
  ]) {
    assert.equal(readNumber(text, BYTES), undefined, text);
  }
});

test('whole numbers stay within their range and take digits only', () => {
  assert.equal(readNumber('65535', WHOLE), 65_535);
  assert.equal(readNumber('0', WHOLE), 0);
  for (const text of ['65536', '-1', '1.0', '+1', '1e2', '0x1', '', 'NaN', 'Infinity', '١']) {
    assert.equal(readNumber(text, WHOLE), undefined, text);
  }
});

test('seconds may have decimals', () => {
  assert.equal(readNumber('0.25', SECONDS), 0.25);
  assert.equal(readNumber('.5', SECONDS), 0.5);
  for (const text of ['0', '0.0001', '61', '.', '1,5', '1s'])
    assert.equal(readNumber(text, SECONDS), undefined, text);
});

test('a rule describes the numbers it takes', () => {
  assert.equal(describeNumber(WHOLE), 'a whole number from 0 to 65535');
  assert.equal(describeNumber(SECONDS), 'a number of seconds from 0.001 to 60');
  assert.match(describeNumber(BYTES), /powers of 1024/);
});

test('a duration is a whole number with its unit, in seconds', () => {
  const rule = { kind: 'duration', min: 0, max: 1e9 } as const;
  assert.deepEqual(
    ['30d', '12h', '90m', '45s', '0s'].map((text) => readNumber(text, rule)),
    [2_592_000, 43_200, 5400, 45, 0],
  );
  for (const text of ['30', 'd', '1.5d', '-1d', '30 d', '1w', '1D', ''])
    assert.equal(readNumber(text, rule), undefined, text);
});

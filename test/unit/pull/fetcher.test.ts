import assert from 'node:assert/strict';
import { test } from 'node:test';
import { partBytes, slowest, usualRate, type Watched } from '../../../src/pull/fetcher.js';

const MIB = 2 ** 20;

/** A MiB a second. */
const USUAL = MIB / 1000;

/** A range at 20 kB a second with 4 MiB left. */
const SLOW: Watched = { bytes: 40_000, ms: 2000, remainingBytes: 4 * MIB, splits: 0, hasBegun: true };

test('the usual rate is that of the middle byte, whatever the rates of small ranges', () => {
  assert.equal(usualRate([]), 0);
  assert.equal(usualRate([{ bytes: 0, ms: 100 }]), 0);
  const small = Array.from({ length: 20 }, () => ({ bytes: 100, ms: 100 }));
  assert.equal(usualRate([...small, { bytes: MIB, ms: 1000 }]), USUAL);
  const rates = [100, 1000, 1000, 1000, 50_000].map((ms) => ({ bytes: MIB, ms }));
  assert.equal(usualRate(rates), USUAL);
});

test('a range that is much slower than usual is the slowest', () => {
  assert.equal(slowest([SLOW], USUAL), SLOW);
  const fast = { ...SLOW, bytes: 2 * MIB };
  const slower = { ...SLOW, bytes: 20_000 };
  assert.equal(slowest([fast, SLOW, slower], USUAL), slower);
});

const GOOD: readonly (readonly [why: string, range: Partial<Watched>])[] = [
  ['is a third as fast', { bytes: (2 * MIB) / 3 }],
  ['is silent', { bytes: 0 }],
  ['had not begun', { hasBegun: false }],
  ['is nearly done', { remainingBytes: 39_000 }],
  ['was moved three times', { splits: 3 }],
];

for (const [why, range] of GOOD) {
  test(`a range that ${why} is left alone`, () => {
    assert.equal(slowest([{ ...SLOW, ...range }], USUAL), undefined);
  });
}

test('without others to compare with, or where they were as slow, no range is slow', () => {
  assert.equal(slowest([SLOW], 0), undefined);
  assert.equal(slowest([SLOW], 40), undefined);
});

test('a remainder is cut into as many parts as are worth a request, but no more than there are connections', () => {
  assert.equal(partBytes(4 * MIB, 16, USUAL), MIB);
  assert.equal(partBytes(4 * MIB, 3, USUAL), Math.ceil((4 * MIB) / 3));
  assert.equal(partBytes(4 * MIB, 16, 100 * USUAL), 4 * MIB);
  assert.equal(partBytes(4 * MIB, 32, 1), 256 * 1024);
  assert.equal(partBytes(1000, 16, 1), 1000);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Crc64 } from '../../../src/sandbox/chunked-writer.js';
import { createPrng } from '../../../src/sandbox/sample-content.js';

const POLYNOMIAL = 0xd800000000000000n;
const ALL_ONES = 0xffffffffffffffffn;

/** The definition, bit by bit. */
function slowly(bytes: Buffer): string {
  let crc = ALL_ONES;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1n ? (crc >> 1n) ^ POLYNOMIAL : crc >> 1n;
  }
  return (crc ^ ALL_ONES).toString(16).padStart(16, '0');
}

function checksum(...pieces: Buffer[]): string {
  const crc = new Crc64();
  for (const piece of pieces) crc.update(piece);
  return crc.digest().toString('hex');
}

test('the catalogued check value of CRC-64/GO-ISO comes out', () => {
  assert.equal(checksum(Buffer.from('123456789')), 'b90956c775a41001');
});

test('the checksum of no bytes is zero', () => {
  assert.equal(checksum(), '0000000000000000');
});

test('eight bytes at a time give the checksum of the definition, at every length and offset', () => {
  const prng = createPrng(1, 1);
  const bytes = Buffer.from(Array.from({ length: 200 }, () => prng.below(256)));
  for (let start = 0; start < 9; start += 1) {
    for (let end = start; end < 60; end += 1) {
      const part = bytes.subarray(start, end);
      assert.equal(checksum(part), slowly(part));
    }
  }
  assert.equal(checksum(bytes), slowly(bytes));
});

test('the checksum does not depend on where the bytes are cut', () => {
  const bytes = Buffer.from('the quick brown fox jumps over the lazy dog, twice and more');
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    assert.equal(checksum(bytes.subarray(0, cut), bytes.subarray(cut)), checksum(bytes));
  }
});

import assert from 'node:assert/strict';

/** Fails at the first byte that differs: `deepEqual` takes a hundred times as long, and tests with random tars call this for each part of them. */
export function assertSameBytes(actual: readonly number[], expected: readonly number[]): void {
  assert.equal(actual.length, expected.length);
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  if (at >= 0) assert.fail(`byte ${at} is ${actual[at]}, not ${expected[at]}`);
}

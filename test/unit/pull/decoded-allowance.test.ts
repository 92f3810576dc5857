import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../../../src/format/decoded-limits.js';
import { DecodedAllowance } from '../../../src/pull/decoded-allowance.js';
import { fakeLayer } from '../../support/fake-context.js';
import { tableOf } from '../../support/layer-tables.js';

const GIB = 2 ** 30;

/** A layer of 1000 bytes whose table states so long a tar. */
function note(allowance: DecodedAllowance, tarBytes: number): void {
  allowance.noteTable(fakeLayer(), tableOf([], 800, tarBytes));
}

test('what layers decode to beyond the ratio is taken from what all of them have together', () => {
  const allowance = new DecodedAllowance();
  allowance.note(1000, 1000 * MAX_DECODED_RATIO);
  assert.equal(allowance.freeBytes, FREE_DECODED_BYTES);
  allowance.note(1000, 1000 * MAX_DECODED_RATIO + 5);
  assert.equal(allowance.freeBytes, FREE_DECODED_BYTES - 5);
  allowance.note(1000, 100 * GIB);
  assert.equal(allowance.freeBytes, 0);
});

test('a table that states more than that is malformed, and takes nothing', () => {
  const allowance = new DecodedAllowance();
  const most = 1000 * MAX_DECODED_RATIO + FREE_DECODED_BYTES;
  const tooMuch = {
    code: 'metadata-malformed',
    message: new RegExp(`states ${most + 1} bytes for a blob of 1000`),
  };
  assert.throws(() => note(allowance, most + 1), tooMuch);
  note(allowance, most);
  assert.equal(allowance.freeBytes, 0);
  note(allowance, 1000 * MAX_DECODED_RATIO);
});

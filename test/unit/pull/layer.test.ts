import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ERROR_CODES, type ErrorCode, PullError } from '../../../src/format/error.js';
import { warnOfFallback } from '../../../src/pull/layer.js';
import { fakeContext, fakeLayer, fakePool } from '../../support/fake-context.js';

/** What chunked metadata can be guilty of. */
const GUILTY: readonly ErrorCode[] = ['metadata-malformed', 'digest-mismatch', 'unsupported'];

/** Whether this failure lets a layer be pulled as a whole, and what the user is told. */
function fallBack(error: unknown) {
  const { context, events } = fakeContext({ support: fakePool(() => Promise.reject(new Error('unused'))) });
  return { may: warnOfFallback(context, fakeLayer(), error), events };
}

test('what bad metadata can be guilty of lets the layer be pulled as a whole, and the user is told once', () => {
  for (const code of GUILTY) {
    const { may, events } = fallBack(new PullError(code, 'the TOC is bad'));
    assert.equal(may, true, code);
    const message = `layer ${fakeLayer().blob.digest}: the TOC is bad; pulling the full layer instead`;
    assert.deepEqual(events, [{ event: 'warning', message }]);
  }
});

test('what a second way would meet again does not, and nobody is told', () => {
  const codes = ERROR_CODES.filter((code) => !GUILTY.includes(code));
  assert.ok(codes.length > 5);
  for (const error of [...codes.map((code) => new PullError(code, 'no')), new Error('no'), 'no', undefined]) {
    const { may, events } = fallBack(error);
    assert.deepEqual([may, events], [false, []]);
  }
});

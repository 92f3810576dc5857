import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ERROR_CODES, fromFailure, inLayer, PullError, toFailure } from '../../../src/format/error.js';

test('an error without a hint of its own has that of its code, on this side of a thread and on the other', () => {
  for (const code of ERROR_CODES) {
    const error = new PullError(code, 'it failed');
    assert.ok(error.hint.length > 20, code);
    assert.equal(fromFailure(toFailure(error)).hint, error.hint);
  }
});

test('a hint of its own and the layer go with an error from thread to thread', () => {
  const error = new PullError('unsupported', 'it failed', { hint: 'do it by hand', layer: 'sha256:1' });
  const { hint, layer } = fromFailure(toFailure(error));
  assert.deepEqual([hint, layer], ['do it by hand', 'sha256:1']);
  assert.equal(inLayer(error, 'sha256:2').layer, 'sha256:1');
});

test('what is no PullError becomes an internal error with a hint', () => {
  for (const thrown of [new TypeError('x is not a function'), 'a string', undefined]) {
    const { code, hint } = toFailure(thrown);
    assert.deepEqual([code, hint], ['internal', new PullError('internal', '').hint]);
  }
});

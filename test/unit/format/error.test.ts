import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ERROR_CODES,
  fromFailure,
  inLayer,
  listSome,
  PullError,
  shorten,
  toFailure,
} from '../../../src/format/error.js';

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

test('a text is cut with a count of what is missing', () => {
  assert.equal(shorten('abc', 3), 'abc');
  assert.equal(shorten('abcdef', 3), 'abc… (3 characters more)');
});

test('a list has as many items as there is room for, and counts the others', () => {
  assert.equal(listSome([]), '');
  assert.equal(listSome(['a', 'b']), 'a, b');
  const items = Array.from({ length: 4096 }, (_, i) => `linux/arch${i}`);
  const list = listSome(items);
  assert.ok(list.startsWith('linux/arch0, linux/arch1, ') && list.length < 640, list);
  assert.match(list, /^[^ ]+(, [^ ]+)+ and 4,0\d\d more$/);
  const long = 'x'.repeat(1000);
  assert.equal(listSome([long, long]), `${long} and 1 more`);
});

test('no error has a message or a hint without end', () => {
  const { message, hint } = new PullError('internal', 'x'.repeat(1e6), { hint: 'y'.repeat(1e6) });
  assert.match(message, /^x{5000}… \(995,000 characters more\)$/);
  assert.match(hint, /^y{5000}… \(995,000 characters more\)$/);
});

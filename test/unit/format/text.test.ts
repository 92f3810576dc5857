import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PullError } from '../../../src/format/error.js';
import { listSome, shorten } from '../../../src/format/text.js';

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

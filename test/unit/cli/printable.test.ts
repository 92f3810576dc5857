import assert from 'node:assert/strict';
import { test } from 'node:test';
import { jsonLine, printable } from '../../../src/cli/format-text.js';

/** Escape sequence, C1's control sequence introducer, right-to-left override, line separator, a hidden tag, half a pair. */
const HOSTILE = 'a\u001b[2Jb\u009b31m\u202ec\u2028\u{e0041}\ud800';

test('what a terminal might obey is shown as an escape on one line', () => {
  assert.equal(printable(HOSTILE), 'a\\u{1b}[2Jb\\u{9b}31m\\u{202e}c\\u{2028}\\u{e0041}\\u{d800}');
  assert.equal(printable('one\r\ntwo'), 'one\\u{d}\\u{a}two');
});

test('letters of any language stay', () => {
  assert.equal(printable('größe 大きさ ✓'), 'größe 大きさ ✓');
});

test('a line of JSON has nothing a terminal might obey, and reads back the same', () => {
  const line = jsonLine({ text: HOSTILE });
  assert.match(line, /^[\x20-\x7e]+\n$/);
  assert.deepEqual(JSON.parse(line), { text: HOSTILE });
});

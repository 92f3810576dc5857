import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tableText } from '../../../src/cli/table.js';

test('columns stand below one another, and no line ends in spaces', () => {
  const rows = [
    ['A', 'BB'],
    ['long', 'x'],
  ];
  assert.equal(tableText(rows), 'A     BB\nlong  x\n');
  assert.equal(tableText([]), '');
});

test('what a terminal would obey is shown', () => {
  assert.equal(tableText([['a\u001b[31m', 'b']]), 'a\\u{1b}[31m  b\n');
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatTable, jsonLine, printable } from '../../../src/cli/format-text.js';
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatList,
  formatSeconds,
  formatShare,
} from '../../../src/format/figures.js';

test('sizes are decimal and never show a thousand of a unit', () => {
  const shown = [0, 999, 1000, 999_949, 999_950, 412_300_000, 1_200_000_000, 5e15].map(formatBytes);
  assert.deepEqual(shown, ['0 B', '999 B', '1.0 kB', '999.9 kB', '1.0 MB', '412.3 MB', '1.2 GB', '5.0 PB']);
});

test('times to come are short, and unknown when nobody can tell', () => {
  const shown = [0, 12.4, 59.4, 59.6, 184, 3599.7, 3720, undefined, Number.POSITIVE_INFINITY, 1e9].map(
    formatSeconds,
  );
  assert.deepEqual(shown, ['0s', '12s', '59s', '1m00s', '3m04s', '1h00m', '1h02m', '--', '--', '--']);
});

test('times that passed read as a sentence wants them', () => {
  const shown = [0, 840, 9949, 9950, 59_499, 59_500, 184_000].map(formatDuration);
  assert.deepEqual(shown, ['0.0 s', '0.8 s', '9.9 s', '10 s', '59 s', '1m00s', '3m04s']);
});

test('a share is a hundred percent only when nothing is missing', () => {
  assert.deepEqual(
    [formatShare(0, 7), formatShare(999, 1000), formatShare(5, 5), formatShare(0, 0)],
    ['0 %', '99 %', '100 %', '100 %'],
  );
});

test('a count agrees with its noun', () => {
  assert.deepEqual(
    [formatCount(0, 'layer'), formatCount(1, 'layer'), formatCount(3, 'layer')],
    ['0 layers', '1 layer', '3 layers'],
  );
});

test('a list has commas, and an and before its last name', () => {
  assert.deepEqual(
    [[], ['a'], ['a', 'b'], ['a', 'b', 'c']].map((names) => formatList(names)),
    ['', 'a', 'a and b', 'a, b and c'],
  );
});

const COLUMNS = [{ title: 'LAYER' }, { title: 'SIZE', numeric: true }, { title: 'FORMAT' }] as const;

test('columns are as wide as their widest cell, and numbers end at the same place', () => {
  const text = formatTable(COLUMNS, [
    ['a', '1.5 MB', 'gzip'],
    ['longer-name', '7 B', 'zstd:chunked'],
  ]);
  assert.equal(
    text,
    [
      'LAYER          SIZE  FORMAT',
      'a            1.5 MB  gzip',
      'longer-name     7 B  zstd:chunked',
      '',
    ].join('\n'),
  );
});

test('no line ends in blanks, and what a row leaves out is empty', () => {
  const text = formatTable(COLUMNS, [
    ['a', '', ''],
    ['b', '2 B', 'tar'],
  ]);
  assert.deepEqual(text.split('\n'), ['LAYER  SIZE  FORMAT', 'a', 'b       2 B  tar', '']);
});

test('a table without rows is its headings', () => {
  assert.equal(formatTable(COLUMNS, []), 'LAYER  SIZE  FORMAT\n');
});

test('what a terminal would obey is shown', () => {
  assert.equal(formatTable([{ title: 'A' }], [['a\u001b[31m']]), 'A\na\\u{1b}[31m\n');
});

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

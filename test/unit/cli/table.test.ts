import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatTable } from '../../../src/cli/format-text.js';

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

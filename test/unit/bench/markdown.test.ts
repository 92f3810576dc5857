import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeMarkdownTable } from '../../../bench/markdown.js';
import { createReport } from '../../../bench/report.js';
import { temporaryDirectory } from '../../support/temporary.js';

test('a table of the bench replaces the one that a document has, and nothing else of it', (t) => {
  const directory = temporaryDirectory(t);
  const document = join(directory, 'B.md');
  writeFileSync(document, 'before\n<!-- bench:rows -->\nold\n<!-- /bench:rows -->\nafter\n');
  const definitions = [
    { id: '1', name: 'wall / a | b', unit: 'ratio', atMost: 1 },
    { id: '2', name: '  memory', unit: 'bytes' },
    { id: '3', name: 'requests', unit: 'count' },
  ] as const;
  const report = createReport(join(directory, 'results.json'), {}, definitions);
  report.record('1', { runs: [1, 1.5, 1.2], note: 'two s' });
  report.skip('3', 'needs nginx');
  writeMarkdownTable(document, 'rows', 'Today:', report.rows());
  assert.equal(
    readFileSync(document, 'utf8'),
    [
      'before\n<!-- bench:rows -->\nToday:\n',
      '| row | what | median (least to most) | goal |  |',
      '| --- | --- | --- | --- | --- |',
      '| 1 | wall / a \\| b | 1.20 (1.00 to 1.50) | <= 1.00: **not met** | two s |',
      '| 3 | requests | not measured |  | needs nginx |',
      '<!-- /bench:rows -->\nafter\n',
    ].join('\n'),
  );
  assert.throws(() => writeMarkdownTable(document, 'real', '', []), /has no place for the table "real"/);
});

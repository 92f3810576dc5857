import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createReport, type Row } from '../../../bench/report.js';
import { temporaryDirectory } from '../../support/temporary.js';

function start(t: TestContext) {
  const path = join(temporaryDirectory(t), 'results', 'one.json');
  const report = createReport(path, { node: 'v0' });
  const saved = () => JSON.parse(readFileSync(path, 'utf8')) as { rows: Row[]; warnings: string[] };
  const row = (id: string) => saved().rows.find((each) => each.id === id)!;
  return { report, saved, row };
}

test('a row is judged by the median of its runs and saved at once', (t) => {
  const { report, row } = start(t);
  report.record('1', { runs: [1.2, 1.26, 1.24] });
  assert.deepEqual([row('1').figure, row('1').verdict], [1.24, 'ok']);
  report.record('3', { runs: [1.25, 1.5] });
  assert.deepEqual([row('3').figure, row('3').verdict], [1.375, 'NOT MET']);
});

test('a row of kills is judged by the worst of them', (t) => {
  const { report, row } = start(t);
  report.record('11b', { runs: [0.01, 0.07, 0.02], by: 'worst' });
  assert.deepEqual([row('11b').figure, row('11b').verdict], [0.07, 'NOT MET']);
});

test('runs that lie far apart are called doubtful', (t) => {
  const { report, saved } = start(t);
  report.record('2', { runs: [1, 1.1, 1.15] });
  report.record('5', { runs: [0.1, 0.13] });
  assert.deepEqual(saved().warnings, ['row 5 is doubtful: 2 runs lie 26 % apart']);
});

test('only rows that were measured are printed, and why others could not be', (t) => {
  const { report } = start(t);
  report.record('8a', { runs: [0] });
  report.skip('9b', 'needs --large');
  assert.deepEqual(report.text().split('\n').slice(1), [
    ' 8a  again, nothing new: blob bytes  0 B     <= 0 B  ok',
    'row 9b was not measured: needs --large',
  ]);
});

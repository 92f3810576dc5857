import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { compareResults, readResults } from '../../../bench/compare.js';
import type { Results, Row } from '../../../bench/report.js';
import { ROWS } from '../../../bench/rows.js';
import { temporaryDirectory } from '../../support/temporary.js';

type Figures = Readonly<Record<string, number>>;

function results(figures: Figures, ...warnings: string[]): Results {
  const rows = ROWS.map((row): Row => {
    const figure = figures[row.id] ?? null;
    return { ...row, figure, verdict: 'info', runs: [], note: '' };
  });
  return { options: { files: 4000 }, rows, warnings };
}

test('a ratio that got worse by more than 10 % is named, whichever way is worse', () => {
  const before = results({ '1': 2, '3': 1.8, '8b': 2 });
  const { worse, lines, doubts } = compareResults(before, results({ '1': 2.3, '3': 1.6, '8b': 2.1 }));
  assert.deepEqual(worse, ['cold pull: CPU / floor', 'wall on one core / on two']);
  assert.equal(lines[0], 'cold pull: CPU / floor: 2.00 -> 2.30 (+15 %, WORSE)');
  assert.deepEqual(doubts, []);
  assert.deepEqual(compareResults(before, results({ '1': 1, '3': 3, '8b': 1 })).worse, []);
});

test('a median that got worse is not named where the runs are too much alike to tell', () => {
  const withRuns = (runs: readonly number[], figure: number): Results => {
    const { rows, ...rest } = results({ '1': figure });
    return { ...rest, rows: rows.map((row) => ({ ...row, runs })) };
  };
  const before = withRuns([1.8, 1.9, 2, 2.4, 2.5], 2);
  assert.deepEqual(compareResults(before, withRuns([1.7, 1.9, 2.3, 2.4, 2.6], 2.3)).worse, []);
  const { worse } = compareResults(before, withRuns([2.6, 2.7, 2.8, 2.9, 3], 2.8));
  assert.deepEqual(worse, ['cold pull: CPU / floor']);
});

test('seconds, bytes and what one of the two did not measure are not compared', () => {
  const { lines } = compareResults(
    results({ '1': 1, '1a': 1, '9a': 1 }),
    results({ '1a': 9, '9a': 9, '2': 9 }),
  );
  assert.deepEqual(lines, []);
});

test('nothing can be said of a busy machine, or without a ratio in common', () => {
  const calm = results({ '1': 1 });
  assert.deepEqual(compareResults(calm, results({ '1': 1 }, 'busy')).doubts, ['busy']);
  assert.equal(compareResults(calm, results({})).doubts.length, 1);
});

test('results of other options and files that have none are refused', (t) => {
  const path = join(temporaryDirectory(t), 'results.json');
  writeFileSync(path, JSON.stringify(results({ '1': 1 })));
  assert.equal(readResults(path, { files: 4000 }).rows.length, ROWS.length);
  assert.throws(() => readResults(path, { files: 20_000 }), /--files 4000, not 20000/);
  writeFileSync(path, '{}');
  assert.throws(() => readResults(path, { files: 4000 }), /has no results/);
});

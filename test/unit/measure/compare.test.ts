import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compareReports, parseReport, slowerThan } from '../../../src/measure/compare.js';
import { measurement, report } from '../../support/bench-report.js';

const BEFORE = [1, 1.1, 1.2, 1.05, 1.15];

function compared(before: readonly number[], now: readonly number[], bytes = 100e6) {
  return compareReports(
    report([measurement('pull/w2/c16', before), measurement('unchanged', [1])]),
    report([measurement('pull/w2/c16', now, { bytes }), measurement('update', [1])]),
  );
}

test('what both reports have is compared: the ratio of medians, and whether it is a difference', () => {
  const { rows, doubts } = compared(BEFORE, [2, 2.2, 2.4, 2.1, 2.3]);
  assert.deepEqual(
    rows.map(({ id, ratio, verdict }) => [id, ratio, verdict]),
    [['pull/w2/c16', 2, 'slower']],
  );
  assert.deepEqual(doubts, []);
  assert.equal(compared([2, 2.2, 2.4, 2.1, 2.3], BEFORE).rows[0]?.verdict, 'faster');
  assert.equal(compared(BEFORE, [1.02, 1.12, 1.22, 1.07, 1.17]).rows[0]?.verdict, 'no difference');
});

test('with few runs no test can tell', () => {
  assert.equal(compared([1, 1], [9, 9]).rows[0]?.verdict, 'too few runs');
});

test('images of different sizes are compared by their rates', () => {
  const { rows, doubts } = compared(BEFORE, [2, 2.2, 2.4, 2.1, 2.3], 200e6);
  assert.deepEqual([rows[0]?.verdict, rows[0]?.ratio.toFixed(3)], ['no difference', '1.000']);
  assert.match(doubts.join(), /^sizes differ, so that seconds are those of a gigabyte: pull/);
  // A retry fetches a little more.
  assert.deepEqual(compared(BEFORE, BEFORE, 100.5e6).doubts, []);
});

test('slower than a limit counts only beyond noise and beyond the limit', () => {
  const slower = compared(BEFORE, [1.3, 1.43, 1.56, 1.37, 1.5]);
  assert.deepEqual([slowerThan(slower, 20).length, slowerThan(slower, 40).length], [1, 0]);
  assert.deepEqual(slowerThan(compared([1, 1], [9, 9]), 10), []);
  assert.deepEqual(slowerThan(compared(BEFORE, [1.02, 1.12, 1.22, 1.07, 1.17]), 0), []);
});

test('reports of other images, machines and settings are doubtful', () => {
  const other = report([measurement('unchanged', [1])], { limitRate: 5e6 });
  const { rows, doubts } = compareReports(
    { ...other, complete: false, machine: { ...other.machine, cores: 64 } },
    report([measurement('update', [1])]),
  );
  assert.deepEqual(rows, []);
  assert.deepEqual(doubts, [
    'the two reports have no measurement in common',
    'the earlier report is not complete',
    'the number of cores differs: 64, now 2',
    '--limit-rate differs: 5000000, now null',
  ]);
});

const FINE = measurement('unchanged', [1]);

function withMeasurements(measurements: readonly unknown[]): string {
  return JSON.stringify({ ...report([]), measurements });
}

test('a comparison needs nothing of a report but what is checked when it is read', () => {
  const bare = { id: 'unchanged', bytes: 0, runs: [{ wallSeconds: 0, bytes: 0 }] };
  const text = JSON.stringify({ schema: 1, image: {}, machine: {}, settings: {}, measurements: [bare] });
  const { rows } = compareReports(parseReport(text), report([FINE]));
  assert.deepEqual([rows[0]!.before, rows[0]!.now, rows[0]!.verdict], [0, 1, 'too few runs']);
});

test('a file that is no report is refused', () => {
  for (const [text, problem] of [
    ['{', /is no JSON/],
    ['null', /is no report/],
    ['{"rows":[]}', /is no report/],
    ['{"schema":2,"measurements":[]}', /of schema 2, not 1/],
    ['{"schema":1,"measurements":[]}', /lacks image, machine or settings/],
    [withMeasurements([null]), /has no figures in measurement 1/],
    [withMeasurements([FINE, { ...FINE, runs: [] }]), /has no figures in measurement 2/],
    [withMeasurements([{ ...FINE, bytes: -1 }]), /has no figures/],
    [withMeasurements([{ ...FINE, runs: [{ wallSeconds: '1', bytes: 1 }] }]), /has no figures/],
    [withMeasurements([{ ...FINE, runs: Array(1001).fill(FINE.runs[0]) }]), /has no figures/],
  ] as const) {
    assert.throws(() => parseReport(text), problem);
  }
  assert.equal(parseReport(JSON.stringify(report([]))).zpull, '1.2.3');
});

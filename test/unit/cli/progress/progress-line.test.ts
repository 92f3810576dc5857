import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bar, progressLine } from '../../../../src/cli/progress/tty-renderer.js';
import { INITIAL_STATE, type ProgressState } from '../../../../src/cli/progress/progress-state.js';

const STATE: ProgressState = {
  ...INITIAL_STATE,
  receivedBytes: 412_300_000,
  totalBytes: 1_200_000_000,
  exact: true,
  message: '2/5 layers',
};

test('at 100 columns the line has eta, a bar of 40, sizes, rate and message', () => {
  assert.equal(
    progressLine(STATE, 98_100_000, 100),
    `[eta 8s] ${'█'.repeat(13)}${'░'.repeat(27)}  412.3 MB/1.2 GB  98.1 MB/s  2/5 layers`,
  );
});

test('a narrower terminal loses length of the bar, message and rate, in this order', () => {
  const at = (columns: number): string => progressLine(STATE, 98_100_000, columns);
  assert.match(at(80), /^\[eta 8s\] [█░]{20} {2}412\.3 MB\/1\.2 GB {2}98\.1 MB\/s {2}2\/5 layers$/);
  assert.match(at(56), /^\[eta 8s\] [█░]{8} {2}412\.3 MB\/1\.2 GB {2}98\.1 MB\/s$/);
  assert.match(at(40), /^\[eta 8s\] [█░]{8} {2}412\.3 MB\/1\.2 GB$/);
});

test('no line reaches the last column beside the spinner, whatever it has to say', () => {
  const extremes: readonly [ProgressState, number][] = [
    [STATE, 98_100_000],
    [{ ...STATE, message: 'x'.repeat(500) }, 1],
    [{ ...STATE, message: '大きさ'.repeat(50) }, 1e15],
    [{ ...STATE, receivedBytes: 999_949_000, totalBytes: 999_949_000_000, exact: false }, 999_949_000],
    [INITIAL_STATE, 0],
  ];
  for (const [state, rate] of extremes) {
    for (let columns = 40; columns <= 220; columns++) {
      const line = progressLine(state, rate, columns);
      assert.match(line, /^[\x20-\x7e█░≤]*$/);
      assert.ok(line.length + 2 < columns, `${line.length} of ${columns}: ${line}`);
    }
  }
});

test('the total is an upper bound until the plan is made, and the time left unknown until bytes come', () => {
  const line = progressLine({ ...STATE, receivedBytes: 0, exact: false }, 0, 120);
  assert.match(line, /^\[eta --\] ░{40} {2}0 B\/≤1\.2 GB {2}0 B\/s/);
});

test('a bar is full only when every byte is there, and never longer', () => {
  assert.equal(bar(999, 1000, 10), `${'█'.repeat(9)}░`);
  assert.equal(bar(1000, 1000, 10), '█'.repeat(10));
  assert.equal(bar(5000, 1000, 10), '█'.repeat(10));
  assert.equal(bar(0, 0, 10), '░'.repeat(10));
});

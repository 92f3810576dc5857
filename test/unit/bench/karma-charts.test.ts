import assert from 'node:assert/strict';
import { test } from 'node:test';
import { karmaCharts } from '../../../bench/karma-charts.js';
import { REFUSED, SILENT, secondsUntilGivenUp, survives } from '../../../bench/karma-figures.js';
import { readSource } from '../../support/sources.js';

test('the picture of docs/karma.md is what karma draws today', () => {
  assert.equal(readSource('docs/karma.svg'), karmaCharts());
});

test('the figures that docs/karma.md states are those of karma', () => {
  const refused = (rate: number) => secondsUntilGivenUp(rate, 16, REFUSED);
  const silent = (rate: number) => secondsUntilGivenUp(rate, 16, SILENT);
  assert.deepEqual([refused(1e6), refused(1e8), refused(0), refused(12)], [11, 16, 0, 0]);
  assert.ok(refused(17) > 0);
  assert.deepEqual([silent(20_000), silent(30_000)], [10, 16]);
  assert.ok(survives(100, 10));
  assert.ok(survives(2, 1));
  assert.ok(!survives(0.9, 0.1));
  assert.ok(!survives(90, 100));
});

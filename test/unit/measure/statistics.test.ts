import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compareSamples, spreadOf, statisticsOf } from '../../../src/measure/statistics.js';

test('figures of a known sample', () => {
  const { standardDeviation, ...figures } = statisticsOf([2, 4, 4, 4, 5, 5, 7, 9]);
  assert.deepEqual(figures, { median: 4.5, mean: 5, min: 2, max: 9, outliers: [7] });
  assert.equal(standardDeviation.toFixed(6), '2.138090');
});

test('a single run has no deviation', () => {
  const expected = { median: 3, mean: 3, standardDeviation: 0, min: 3, max: 3, outliers: [] };
  assert.deepEqual(statisticsOf([3]), expected);
});

test('a run far from the others is named as an outlier, in either direction', () => {
  assert.deepEqual(statisticsOf([1, 1.01, 0.99, 1.02, 3]).outliers, [4]);
  assert.deepEqual(statisticsOf([0.1, 1, 1.01, 0.99, 1.02]).outliers, [0]);
  assert.deepEqual(statisticsOf([1, 1.2, 0.9, 1.1, 1]).outliers, []);
  assert.deepEqual(statisticsOf([1, 1, 1, 1, 5]).outliers, []);
});

test('the spread is the range over the median', () => {
  assert.equal(spreadOf(statisticsOf([9, 10, 12])), 0.3);
  assert.equal(spreadOf(statisticsOf([0, 0])), 0);
});

test('samples apart from each other differ, in their direction', () => {
  const [low, high] = [
    [1, 1.1, 1.2, 1.05, 1.15],
    [1.3, 1.4, 1.5, 1.35, 1.45],
  ];
  assert.equal(compareSamples(low, high), 'larger');
  assert.equal(compareSamples(high, low), 'smaller');
});

test('samples that overlap are the same, and so are equal ones', () => {
  assert.equal(compareSamples([1, 1.1, 1.2, 1.3, 1.4], [1.15, 1.25, 1.05, 1.45, 1.35]), 'same');
  assert.equal(compareSamples([2, 2, 2, 2], [2, 2, 2, 2]), 'same');
});

test('one outlier does not make a difference', () => {
  assert.equal(compareSamples([1, 1.1, 1.2, 1.3, 1.4], [1.05, 1.15, 1.25, 1.35, 100]), 'same');
});

test('three runs against three cannot show a difference, four against four can', () => {
  assert.equal(compareSamples([1, 1, 1], [9, 9, 9]), 'too-few');
  assert.equal(compareSamples([1, 2, 3, 4], [6, 7, 8, 9]), 'larger');
  assert.equal(compareSamples([1], [9, 9, 9, 9, 9, 9, 9]), 'too-few');
});

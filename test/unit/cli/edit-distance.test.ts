import assert from 'node:assert/strict';
import { test } from 'node:test';
import { editDistance, nearest } from '../../../src/cli/edit-distance.js';

test('the distance counts insertions, deletions and replacements', () => {
  const distances = ['export', 'expor', 'exports', 'expotr', 'import', ''].map((word) =>
    editDistance(word, 'export'),
  );
  assert.deepEqual(distances, [0, 1, 1, 2, 2, 6]);
});

test('a word of any length costs no time', () => {
  assert.equal(editDistance('x'.repeat(1e6), 'export'), Number.POSITIVE_INFINITY);
});

test('the nearest candidate wins, within the limit only', () => {
  assert.equal(nearest('sotre', ['serve', 'store'], 2), 'store');
  assert.equal(nearest('alpine', ['serve', 'store', 'plan'], 2), undefined);
});

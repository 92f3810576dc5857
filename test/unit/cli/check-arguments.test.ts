import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nearest } from '../../../src/cli/check-arguments.js';

/** Whether `word` becomes `export` by as many edits as given and no fewer. */
function isAway(word: string, edits: number): boolean {
  return nearest(word, ['export'], edits) === 'export' && nearest(word, ['export'], edits - 1) === undefined;
}

test('the distance counts insertions, deletions and replacements', () => {
  for (const [word, edits] of [
    ['export', 0],
    ['expor', 1],
    ['exports', 1],
    ['expotr', 2],
    ['import', 2],
    ['', 6],
  ] as const) {
    assert.ok(isAway(word, edits), word);
  }
});

test('a word of any length costs no time', () => {
  assert.equal(nearest('x'.repeat(1e6), ['export'], 1e7), undefined);
});

test('the nearest candidate wins, within the limit only', () => {
  assert.equal(nearest('sotre', ['serve', 'store'], 2), 'store');
  assert.equal(nearest('alpine', ['serve', 'store', 'plan'], 2), undefined);
});

import assert from 'node:assert/strict';
import { appendFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { noteRange, RangeJournal } from '../../../src/store/range-journal.js';
import { temporaryDirectory } from '../../support/temporary.js';

test('what was noted is read again, for the same purpose only', async (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'file.ranges');
  const journal = new RangeJournal(path, 'sha256:aa');
  assert.deepEqual(journal.read(), []);
  await journal.begin();
  noteRange(path, { start: 8, end: 16 });
  noteRange(path, { start: 0, end: 8 });
  const noted = [
    { start: 8, end: 16 },
    { start: 0, end: 8 },
  ];
  assert.deepEqual(new RangeJournal(path, 'sha256:aa').read(), noted);
  assert.deepEqual(new RangeJournal(path, 'sha256:a').read(), []);
  await journal.begin();
  assert.deepEqual(journal.read(), []);
  await journal.remove();
  assert.deepEqual(readdirSync(directory), []);
});

test('a line that a crash cut off, or that makes no sense, is none', async (t) => {
  const path = join(temporaryDirectory(t), 'file.ranges');
  const journal = new RangeJournal(path, 'key');
  await journal.begin();
  appendFileSync(path, '9 5\n-1 5\n0 99999999999999999999\n\nkey\n1 2 3\n5 7\n10 2');
  assert.deepEqual(journal.read(), [{ start: 5, end: 7 }]);
});

import assert from 'node:assert/strict';
import { appendFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { noteRange, RangeJournal } from '../../../src/copy/range-journal.js';
import { temporaryDirectory } from '../../support/temporary.js';

/** Windows says 0 of every file. */
const OWNER = process.geteuid?.() ?? 0;

test('what was noted is read again, for the same purpose only', (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'file.ranges');
  const journal = new RangeJournal(path, 'sha256:aa', OWNER);
  assert.deepEqual(journal.read(), []);
  const file = journal.begin();
  noteRange(file, { start: 8, end: 16 });
  noteRange(file, { start: 0, end: 8 });
  const noted = [
    { start: 8, end: 16 },
    { start: 0, end: 8 },
  ];
  assert.deepEqual(new RangeJournal(path, 'sha256:aa', OWNER).read(), noted);
  assert.deepEqual(new RangeJournal(path, 'sha256:a', OWNER).read(), []);
  journal.begin();
  assert.deepEqual(journal.read(), []);
  journal.remove();
  assert.deepEqual(readdirSync(directory), []);
});

test('a line that a crash cut off, or that makes no sense, is none', (t) => {
  const path = join(temporaryDirectory(t), 'file.ranges');
  const journal = new RangeJournal(path, 'key', OWNER);
  journal.begin();
  appendFileSync(path, '9 5\n-1 5\n0 99999999999999999999\n\nkey\n1 2 3\n5 7\n10 2');
  assert.deepEqual(journal.read(), [{ start: 5, end: 7 }]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Warnings } from '../../../src/pull/pull-events.js';
import { digestOf } from '../store/support.js';

function told(messages: readonly string[]): string[] {
  const shown: string[] = [];
  const warnings = new Warnings((message) => shown.push(message));
  for (const message of messages) warnings.add(message);
  warnings.end();
  return shown;
}

test('of warnings that differ by digests and numbers eight are emitted, and the number of the others', () => {
  const messages = Array.from({ length: 999 }, (_, i) => `layer ${digestOf(`${i}`)}: ends at ${i}`);
  const shown = told(messages);
  assert.deepEqual(shown.slice(0, 8), messages.slice(0, 8));
  assert.deepEqual(shown.slice(8), [`991 more warnings like this: ${messages[0]}`]);
  assert.deepEqual(told(messages.slice(0, 8)), messages.slice(0, 8));
  assert.deepEqual(told(messages.slice(0, 9)).slice(8), [`1 more warning like this: ${messages[0]}`]);
});

test('the number of kinds of warnings is bounded as well', () => {
  const messages = Array.from({ length: 5000 }, (_, i) => 'x'.repeat(i + 1));
  const shown = told(messages);
  assert.deepEqual(shown.slice(0, 30), messages.slice(0, 30));
  assert.deepEqual(shown.slice(30), ['4,970 more warnings of other kinds']);
});

test('a long warning is cut', () => {
  const [shown = ''] = told(['x'.repeat(3_000_000)]);
  assert.equal(shown, `${'x'.repeat(1000)}… (2,999,000 characters more)`);
});

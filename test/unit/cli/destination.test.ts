import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDestination } from '../../../src/cli/destination.js';
import { UsageError } from '../../../src/cli/usage-error.js';

test('a destination is a scheme and a path, which may hold colons', () => {
  assert.deepEqual(parseDestination('layers:./a:b'), { scheme: 'layers', path: './a:b' });
  assert.deepEqual(parseDestination('tar:-'), { scheme: 'tar', path: '-' });
});

test('an unknown scheme, no scheme and no path are wrong usage, with the schemes as hint', () => {
  for (const text of ['zip:x', 'layers', ':x', '', 'layers:', 'constructor:x']) {
    assert.throws(
      () => parseDestination(text),
      (error) => error instanceof UsageError && error.hint.includes('layers:PATH'),
      text,
    );
  }
});

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { UsageError } from '../../../src/cli/usage-error.js';
import { ERROR_CODES, PullError } from '../../../src/index.js';

const page = readFileSync(new URL('../../../../docs/errors.md', import.meta.url), 'utf8');

test('docs/errors.md lists every error code with its exit code, and no other', () => {
  const rows = [...page.matchAll(/^\| `([a-z-]+)` \| (\d+) \|/gm)].map(([, code, exit]) => `${code} ${exit}`);
  const expected = ERROR_CODES.map((code) => `${code} ${new PullError(code, '').exitCode}`);
  assert.deepEqual(rows.toSorted(), expected.toSorted());
});

test('wrong usage found before the engine is loaded has the code and exit code of the engine', () => {
  const { code, exitCode } = new UsageError('', '');
  assert.equal(exitCode, new PullError(code, '').exitCode);
});

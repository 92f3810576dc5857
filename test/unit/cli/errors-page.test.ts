import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { UsageError } from '../../../src/cli/report-failure.js';
import { ERROR_CODES, PullError } from '../../../src/index.js';

const page = readFileSync(new URL('../../../../docs/errors.md', import.meta.url), 'utf8');

test('docs/errors.md lists every error code with its exit code and its hint, and no other', () => {
  const rows = [...page.matchAll(/^\| `([a-z-]+)` \| (\d+) \|.*\| (.+) \|$/gm)].map(
    ([, code, exit, hint]) => `${code} ${exit}: ${hint!.replaceAll('`', '')}`,
  );
  const expected = ERROR_CODES.map((code) => {
    const { exitCode, hint } = new PullError(code, '');
    return `${code} ${exitCode}: ${hint}`;
  });
  assert.deepEqual(rows.toSorted(), expected.toSorted());
});

test('wrong usage found before the engine is loaded has the code and exit code of the engine', () => {
  const { code, exitCode } = new UsageError('', '');
  assert.equal(exitCode, new PullError(code, '').exitCode);
});

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { failureOf, reportFailure, UsageError } from '../../../src/cli/failure.js';
import { ERROR_CODES, PullError } from '../../../src/index.js';

const LAYER = `sha256:${'a'.repeat(64)}`;

/** What a failure puts on stdout and stderr. */
async function report(t: TestContext, error: unknown, json: boolean): Promise<string> {
  const failure = await failureOf(error);
  let text = '';
  const take = (chunk: string): boolean => {
    text += chunk;
    return true;
  };
  const writes = [process.stdout, process.stderr].map((stream) => t.mock.method(stream, 'write', take));
  reportFailure(failure, { json, debug: false });
  for (const write of writes) write.mock.restore();
  return text;
}

test('with --json every error has a hint, whatever its code and whether it was expected', async (t) => {
  for (const error of [
    ...ERROR_CODES.map((code) => new PullError(code, 'it failed')),
    new Error('oops'),
    1,
  ]) {
    const { error: told } = JSON.parse(await report(t, error, true)) as { error: { hint: string } };
    assert.ok(told.hint.length > 20, JSON.stringify(told));
  }
});

test('a sentence that does not name its layer is followed by it', async (t) => {
  const of = (message: string) => report(t, new PullError('unsupported', message, { layer: LAYER }), false);
  assert.match(
    await of('a frame is too large'),
    new RegExp(`^zpull: a frame is too large \\(layer ${LAYER}\\)\n`),
  );
  assert.match(await of(`layer ${LAYER} is encrypted`), /is encrypted\nhint: /);
});

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

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ERROR_CODES, PullError } from '../../../src/api/errors.js';
import { failureOf, reportFailure, UsageError } from '../../../src/cli/failure.js';

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

test('wrong usage found before the engine is loaded has the code and exit code of the engine', () => {
  const { code, exitCode } = new UsageError('', '');
  assert.equal(exitCode, new PullError(code, '').exitCode);
});

import assert from 'node:assert/strict';
import { readdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { throughFile } from '../../../../src/cli/commands/copy.js';
import { PullError } from '../../../../src/format/error.js';
import { failureOf } from '../../../support/pull.js';
import { temporaryDirectory } from '../../../support/temporary.js';

test('an abort before the archive is sent is no success', async (t) => {
  const holder = temporaryDirectory(t);
  const before = process.env['TMPDIR'];
  process.env['TMPDIR'] = holder;
  t.after(() => {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
  });
  const controller = new AbortController();
  const make = async (path: string) => {
    writeFileSync(path, 'never sent');
    controller.abort(new PullError('interrupted', 'interrupted by SIGINT'));
  };
  assert.equal((await failureOf(throughFile(make, controller.signal))).code, 'interrupted');
  assert.deepEqual(readdirSync(holder), []);
});

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { lstatSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { replaceFile, requireWritable } from '../../../src/cli/bench-files.js';
import { temporaryDirectory } from '../../support/temporary.js';

test('a report replaces a file, and that which a link leads to', (t) => {
  const directory = temporaryDirectory(t);
  const [file, link] = ['file', 'link'].map((name) => join(directory, name)) as [string, string];
  symlinkSync(file, link);
  requireWritable(link);
  writeFileSync(file, 'before');
  replaceFile(link, 'now');
  assert.equal(readFileSync(file, 'utf8'), 'now');
  assert.ok(lstatSync(link).isSymbolicLink());
  assert.deepEqual(readdirSync(directory).sort(), ['file', 'link']);
});

test('what cannot be replaced by a report is refused', (t) => {
  const directory = temporaryDirectory(t);
  const at = (name: string) => join(directory, name);
  execFileSync('mkfifo', [at('pipe')]);
  mkdirSync(at('directory'));
  writeFileSync(at('file'), '');
  symlinkSync(at('pipe'), at('link'));
  for (const [name, code] of [
    ['pipe', 'option-malformed'],
    ['link', 'option-malformed'],
    ['directory', 'store-broken'],
    ['absent/report', 'store-broken'],
    ['file/report', 'store-broken'],
  ] as const) {
    assert.throws(() => requireWritable(at(name)), { code });
  }
});

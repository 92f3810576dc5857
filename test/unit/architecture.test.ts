import assert from 'node:assert/strict';
import { test } from 'node:test';
import { filesInTables, pathsIn } from '../support/map-page.js';
import { exists, readSource, sourceFiles } from '../support/sources.js';

const PAGE = readSource('ARCHITECTURE.md');

test('ARCHITECTURE.md names every file of src and workers once, and no other', () => {
  const files = ['bin/zpull.cjs', ...sourceFiles().filter((path) => /^(src|workers)\//.test(path))];
  const named = filesInTables(PAGE);
  assert.deepEqual(
    files.filter((path) => !named.includes(path)),
    [],
    'not named',
  );
  assert.deepEqual(
    named.filter((path, row) => !files.includes(path) || named.indexOf(path) !== row),
    [],
    'named, but not there or named before',
  );
});

test('every path that a page names exists', () => {
  for (const page of [
    'ARCHITECTURE.md',
    'CONTRIBUTING.md',
    'README.md',
    'docs/errors.md',
    'docs/karma.md',
    'docs/registries.md',
    'docs/store-format.md',
  ]) {
    const missing = pathsIn(readSource(page)).filter((path) => !exists(path));
    assert.deepEqual(missing, [], page);
  }
});

test('files and paths are read from a page as they stand there', () => {
  const page = [
    '### `src/pull/`: pulls',
    '| file | what it is for |',
    '| `a.ts`, `deep/b.ts` | as `c.ts` says |',
    '### Elsewhere',
    '| `d.ts` | `workers/main.ts` and `test/e2e/` |',
  ].join('\n');
  assert.deepEqual(filesInTables(page), ['src/pull/a.ts', 'src/pull/deep/b.ts']);
  assert.deepEqual(pathsIn(page), ['src/pull/', 'workers/main.ts', 'test/e2e/']);
});

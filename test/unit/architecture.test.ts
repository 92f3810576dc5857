import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generatedPages } from '../../scripts/pages.js';
import { exists, pagesOfProject, readSource, sourceFiles } from '../support/sources.js';

const PAGE = readSource('ARCHITECTURE.md');

test('ARCHITECTURE.md names every folder of sources once, and no other', () => {
  const folders = new Set(['bin/', ...sourceFiles().map((path) => folderOf(path))]);
  assert.deepEqual(foldersIn(PAGE).sort(), [...folders].sort());
});

/** A folder of src, or src or one beside it. */
function folderOf(path: string): string {
  const [top, inner] = path.split('/');
  return top === 'src' && inner !== 'index.ts' ? `src/${inner}/` : `${top}/`;
}

test('every path that a page names exists', () => {
  for (const page of pagesOfProject()) {
    const missing = pathsIn(readSource(page)).filter((path) => !exists(path));
    assert.deepEqual(missing, [], page);
  }
});

test('what pages have from the code is what the code says; npm run pages writes it', () => {
  const pages = generatedPages();
  assert.ok(pages.some(({ path }) => path === 'docs/cli.md'));
  for (const { path, present, expected } of pages) assert.equal(present, expected, path);
});

test('folders and paths are read from a page as they stand there', () => {
  const page = [
    '| `src/pull/` | pulls, see `src/copy/` |',
    '| `workers/` | `workers/main.ts` and `test/e2e/` |',
    '`docs/` is no row',
  ].join('\n');
  assert.deepEqual(foldersIn(page), ['src/pull/', 'workers/']);
  assert.deepEqual(pathsIn(page), [
    'src/pull/',
    'src/copy/',
    'workers/',
    'workers/main.ts',
    'test/e2e/',
    'docs/',
  ]);
});

/** The folders that have a row of their own in a table: the first cell is the folder alone. */
function foldersIn(page: string): string[] {
  return [...page.matchAll(/^\| `([\w./-]+\/)` \|/gm)].map(([, folder]) => folder!);
}

/** Paths with a folder that stand anywhere in a page between backquotes: `src/pull/pull.ts`, `docs/errors.md`, `test/e2e/`. */
function pathsIn(page: string): string[] {
  return [...page.matchAll(/`((?:src|workers|bench|test|docs|bin|\.ci)\/[\w./-]*)`/g)].map(
    ([, path]) => path!,
  );
}

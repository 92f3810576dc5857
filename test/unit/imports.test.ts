import assert from 'node:assert/strict';
import { posix } from 'node:path';
import { test } from 'node:test';
import { filesByPath, importsOf, violationsOf } from '../support/import-rule.js';
import { readSource, sourceFiles } from '../support/sources.js';

test('every source imports only what its room may', () => {
  const files = sourceFiles();
  assert.ok(files.includes('src/index.ts') && files.includes('workers/main.ts'));
  assert.deepEqual(
    files.flatMap((path) => violationsOf(path, readSource(path))),
    [],
  );
});

test('files of the store are opened, read, listed and deleted by way of src/files alone', () => {
  assert.deepEqual(
    sourceFiles().flatMap((path) => filesByPath(path, readSource(path))),
    [],
  );
  const cases: readonly (readonly [string, string, number])[] = [
    ['src/store/verify.ts', "import { closeSync, openSync, readFileSync as read } from 'node:fs';", 2],
    ['src/store/verify.ts', "import { open, type FileHandle } from 'node:fs/promises';", 1],
    ['src/store/verify.ts', "import fs from 'node:fs';", 1],
    ['workers/check/check-layer.ts', "import * as fs from 'fs';", 1],
    ['workers/check/check-layer.ts', "import {\n  readdirSync,\n  readSync,\n} from 'node:fs';", 1],
    ['workers/check/check-layer.ts', "import { closeSync, readSync } from 'node:fs';", 0],
    ['src/cli/main.ts', "import { readFileSync } from 'node:fs';", 0],
  ];
  for (const [path, line, count] of cases) assert.equal(filesByPath(path, line).length, count, line);
});

/** The compiled files that one loads when it is imported: these have no imports of types. */
function loadedBy(path: string, loaded = new Set<string>()): Set<string> {
  if (loaded.has(path)) return loaded;
  loaded.add(path);
  for (const specifier of staticImportsOf(path))
    if (specifier.startsWith('.')) loadedBy(posix.join(posix.dirname(path), specifier), loaded);
  return loaded;
}

function staticImportsOf(path: string): string[] {
  const imports = readSource(path).matchAll(/^(?:import|export) (?:[^'\n]* from )?'([^']+)'/gm);
  return Array.from(imports, ([, specifier]) => specifier!);
}

test('a pull loads no exports, no copies and nothing that looks after the store before it needs them', () => {
  const loaded = loadedBy('dist/src/cli/commands/pull.js');
  assert.ok(loaded.has('dist/src/store/paths.js'));
  const needless = /\/src\/(index|export\/|copy\/|store\/(list|prune|verify))/;
  assert.deepEqual(
    [...loaded].filter((path) => needless.test(path)),
    [],
  );
});

test('a thread that looks up or hashes loads no package, such as an HTTP client or a decoder', () => {
  const packages = (path: string) =>
    [...loadedBy(path)].flatMap(staticImportsOf).filter((specifier) => /^(?!\.|node:)/.test(specifier));
  assert.ok(packages('dist/workers/metadata/read-metadata.js').includes('@mongodb-js/zstd'));
  for (const path of ['metadata/look-up', 'check/verify-layer', 'check/check-layer'])
    assert.deepEqual(packages(`dist/workers/${path}.js`), [], path);
});

test('all forms of import are seen, comments are not', () => {
  const source = [
    "import './a.js';",
    "import b from './b.js';",
    "import type { C } from './c.js';",
    'import {',
    '  // it\'s a "long" list',
    '  type D,',
    "} from './d.js';",
    "export { e } from './e.js';",
    "export * from './f.js';",
    "export type { G } from './g.js';",
    "const glob = 'src/**/*.ts';",
    "const h = await import('./h.js');",
    'type I = typeof import("./i.js");',
    'const j = await import(glob);',
    "// import k from './k.js';",
    "/** See `import('./l.js')`. */",
    "export const from = './m.js';",
    "export const n = 'n';",
  ].join('\n');
  assert.deepEqual(importsOf(source), [
    './a.js',
    './b.js',
    './c.js',
    './d.js',
    './e.js',
    './f.js',
    './g.js',
    './h.js',
    './i.js',
    '(computed)',
  ]);
});

/** Put together, lest this file itself seems to import it. */
function dynamic(specifier: string): string {
  return `const { x } = await import('${specifier}');`;
}

/** A line of a made-up source, and whether it may stand in that file. */
const CASES: readonly (readonly [path: string, line: string, allowed: boolean])[] = [
  ['src/cli/main.ts', "import { pullImage } from '../api/pull.js';", true],
  ['src/cli/main.ts', "import { pullImage } from '../index.js';", false],
  ['src/cli/commands/pull.ts', "import type { Plan } from '../../plan/plan.js';", false],
  ['src/cli/main.ts', "import { PullError } from '../format/error.js';", false],
  ['src/measure/grid.ts', "import { pullImage } from '../api/pull.js';", true],
  ['src/measure/grid.ts', "import { pullImage } from '../index.js';", false],
  ['src/measure/grid.ts', "import { x } from '../pull/pull.js';", false],
  ['src/index.ts', "export * from './api/pull.js';", true],
  ['src/api/pull.ts', "export { pullImage } from '../pull/pull.js';", true],
  ['src/api/pull.ts', "export { x } from '../registry/session.js';", false],
  ['src/pull/pull.ts', "import { x } from '../sandbox/tar-reader.js';", false],
  ['src/export/tar.ts', "import { x } from '../pull/pull.js';", false],
  ['src/store/verify.ts', "import { x } from '../pool/worker-pool.js';", true],
  ['src/store/verify.ts', "import { x } from '../plan/plan.js';", false],
  ['src/registry/exchange.ts', "import { x } from '../pool/messages.js';", false],
  ['src/registry/trust.ts', "import { x } from '../files/read-input.js';", true],
  ['src/pull/pull.ts', "import { x } from '../copy/copy.js';", false],
  ['src/format/toc.ts', "import type { x } from '../plan/plan.js';", false],
  ['src/format/toc.ts', "import { x } from '../../workers/opaque/zstd-engine.js';", false],
  ['src/format/toc.ts', "import { Buffer } from 'node:buffer';", true],
  ['src/format/toc.ts', "import { createHash } from 'node:crypto';", false],
  ['src/plan/plan.ts', "import { performance } from 'node:perf_hooks';", false],
  ['src/pull/pull.ts', "const { x } = await import('../cli/main.js');", false],
  ['src/pull/pull.ts', 'await import(name);', false],
  ['workers/fetch/fetch-span.ts', "import type { Task } from '../../src/pool/messages.js';", true],
  ['workers/fetch/fetch-span.ts', "import { WorkerPool } from '../../src/pool/worker-pool.js';", false],
  ['workers/fetch/fetch-span.ts', "import { x } from '../../src/pull/retry-policy.js';", false],
  ['workers/opaque/zstd-engine.ts', "import { decompress } from '@mongodb-js/zstd';", true],
  ['src/registry/exchange.ts', "import { decompress } from '@mongodb-js/zstd';", false],
  ['src/pool/worker-pool.ts', dynamic('piscina'), true],
  ['src/pool/layer-tasks.ts', "import type { x } from '../store/extents.js';", true],
  ['src/pool/layer-tasks.ts', "import {\n  type x\n} from '../store/extents.js';", false],
  ['src/pool/layer-tasks.ts', "import { x } from '../store/extents.js';", false],
  ['src/pool/layer-tasks.ts', dynamic('../store/extents.js'), false],
  ['src/pool/layer-tasks.ts', "import type { x } from '../pull/layer.js';", false],
  ['src/pull/workers.ts', dynamic('piscina'), false],
  ['src/export/tar.ts', "import type { Piscina } from 'piscina';", false],
  ['workers/fetch/range-client.ts', "import { Agent } from 'undici';", false],
  ['src/registry/exchange.ts', "import { Agent } from 'undici';", true],
  ['src/measure/table.ts', "import ora from 'ora';", false],
  ['src/cli/main.ts', "import yargs from 'yargs';", true],
  ['src/cli/main.ts', "import yargs from 'yargs/helpers';", true],
  ['src/cli/main.ts', "import chalk from 'chalk';", false],
  ['bench/main.ts', "import { pullImage } from '../src/api/pull.js';", true],
  ['bench/main.ts', "import { x } from '../src/store/paths.js';", false],
  ['test/unit/x.test.ts', "import { x } from '../../src/store/paths.js';", true],
  ['test/unit/x.test.ts', "import { Agent } from 'undici';", false],
  ['src/helpers.ts', "import 'node:fs';", false],
  ['src/format/toc.ts', "import '../helpers.js';", false],
  ['src/attic/x.ts', '', false],
];

test('made-up sources that break the rule are found, and no others', () => {
  for (const [path, line, allowed] of CASES) {
    const violations = violationsOf(path, line);
    assert.equal(violations.length === 0, allowed, `${path}: ${line} ${violations.join()}`);
  }
});

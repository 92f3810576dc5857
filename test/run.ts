/**
 * Runs the compiled tests with node:test: `node --test` takes no globs in Node 20 and no directory in Node 24.
 * Arguments choose files whose path contains one of them. With CI=true a skipped test is a failure, unless the program it
 * needs is optional.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { bundle } from '../scripts/bundle.js';
import { OPTIONAL } from './support/programs.js';

const root = import.meta.dirname;
const wanted = process.argv.slice(2);
const files = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.test.js'))
  .map((name) => join(root, name))
  .filter((path) => wanted.length === 0 || wanted.some((part) => relative(root, path).includes(part)))
  .sort();

if (files.length === 0) {
  process.stderr.write(`no test file matches ${wanted.join(' ')}\n`);
  process.exit(1);
}

/** Unit tests share this many processes: one for each of their 190 files would spend a quarter of its time on starting. */
const UNIT_PROCESSES = 6;

/** Files that import the unit tests, so that several run in one process, and all other test files. */
function grouped(paths: readonly string[]): string[] {
  const groups = join(root, 'groups');
  rmSync(groups, { recursive: true, force: true });
  mkdirSync(groups);
  const isUnit = (path: string) => relative(root, path).startsWith('unit');
  const unit = paths.filter(isUnit);
  const names = Array.from({ length: Math.min(UNIT_PROCESSES, unit.length) }, (_, i) => {
    const name = join(groups, `unit-${i}.js`);
    const imports = unit.filter((_, row) => row % UNIT_PROCESSES === i);
    writeFileSync(name, imports.map((path) => `import '../${relative(root, path)}';\n`).join(''));
    return name;
  });
  return [...paths.filter((path) => !isUnit(path)), ...names];
}

// What threads run must be what was compiled last.
await bundle();

/** How this machine gets to its network must decide no test. */
const NETWORK = /^(https?_proxy|no_proxy|ssl_cert_(file|dir)|containers_registries_conf)$/i;
for (const name of Object.keys(process.env)) if (NETWORK.test(name)) delete process.env[name];

const skipped: string[] = [];
let failed = false;
/** The longest file takes 40 s on two cores: what has not ended after this hangs. */
const FILE_TIMEOUT_MS = 240_000;

// A pull of a test decodes little: V8 would spend a third of its CPU time on optimizing the decoder. Tests inherit what node was given.
process.execArgv.push('--wasm-tiering-budget=180000000');

/** One more than the cores of a small machine: many tests wait for a third of their time. */
const FILES_AT_A_TIME = 3;

const events = run({ files: grouped(files), concurrency: FILES_AT_A_TIME, timeout: FILE_TIMEOUT_MS });
events.on('test:fail', () => {
  failed = true;
});
events.on('test:pass', (event) => {
  if (event.skip !== undefined && !String(event.skip).startsWith(OPTIONAL))
    skipped.push(`${event.name}: ${String(event.skip)}`);
});
events.on('end', () => {
  if (process.env['CI'] === 'true' && skipped.length > 0) {
    process.stderr.write(`\nskipped, which CI does not accept:\n${skipped.join('\n')}\n`);
    failed = true;
  }
  process.exitCode = failed ? 1 : 0;
});
events.compose(new spec()).pipe(process.stdout);

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

/**
 * Test files of these folders share so many processes: one for each of their 300 would spend a fifth of its time on loading and warming up
 * the same code. Those that run the command (`e2e`) do little themselves.
 */
const SHARED_PROCESSES: Readonly<Record<string, number>> = { integration: 12, unit: 6 };

/**
 * Files that take longest have a process of their own, and begin first: none of them is left when all others have ended. Any other file
 * leaves its process as it was, and has no `before` or `after` of its own: in a shared process they are those of all files.
 */
const ALONE = [
  'pull-memory',
  'pull-killed',
  'hostile-table',
  'store-crash',
  'pull-faults',
  'threads',
  'bench',
].map((name) => join('integration', `${name}.test.js`));

/** The files to run: some as they are, others imported by a file that is written here. */
function grouped(paths: readonly string[]): string[] {
  const groups = join(root, 'groups');
  rmSync(groups, { recursive: true, force: true });
  mkdirSync(groups);
  const names = paths.map((path) => relative(root, path));
  const folderOf = (name: string) => name.slice(0, name.indexOf('/'));
  const isAlone = (name: string) => ALONE.includes(name) || !(folderOf(name) in SHARED_PROCESSES);
  const shared = Object.entries(SHARED_PROCESSES).flatMap(([folder, processes]) => {
    const inFolder = names.filter((name) => folderOf(name) === folder && !isAlone(name));
    return Array.from({ length: Math.min(processes, inFolder.length) }, (_, i) => {
      const path = join(groups, `${folder}-${i}.js`);
      const imports = inFolder.filter((_, row) => row % processes === i);
      writeFileSync(path, imports.map((name) => `import '../${name}';\n`).join(''));
      return path;
    });
  });
  const alone = names.filter(isAlone).sort((a, b) => ALONE.indexOf(b) - ALONE.indexOf(a));
  return [...alone.map((name) => join(root, name)), ...shared];
}

// What threads run must be what was compiled last.
await bundle();

/** How this machine gets to its network must decide no test. */
const NETWORK = /^(https?_proxy|no_proxy|ssl_cert_(file|dir)|containers_registries_conf)$/i;
for (const name of Object.keys(process.env)) if (NETWORK.test(name)) delete process.env[name];

const skipped: string[] = [];
let failed = false;
/** The longest process takes 90 s on two cores, and three times that where others use them: what has not ended after this hangs. */
const FILE_TIMEOUT_MS = 480_000;

// A pull of a test decodes little: V8 would spend a third of its CPU time on optimizing the decoder, and the parser of HTTP answers. Tests
// inherit what node was given, and give it to the processes that they start.
process.execArgv.push('--wasm-tiering-budget=2000000000');

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

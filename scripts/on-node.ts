/**
 * Runs the quick half of the compiled tests on other versions of Node: `node dist/scripts/on-node.js
 * 22 24 latest`, with parts of the paths of tests behind `--` to choose others. The programs come
 * from npm's packages of Node's binaries and are removed afterwards.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const RUNNER = fileURLToPath(new URL('../test/run.js', import.meta.url));

const VERSIONS = ['22', '24', 'latest'];

/** What depends most on Node: files, sockets, threads, zlib, and the command. The rest is mostly pure, and slow. */
const QUICK = [
  'unit/cli',
  'unit/export',
  'unit/files',
  'unit/pool',
  'unit/registry',
  'unit/store',
  'unit/workers',
  'e2e/cli',
  'integration/copy.test',
  'integration/pull.test',
  'integration/pull-fixtures',
  'integration/pull-rootfs',
  'integration/session-sockets',
  'integration/threads',
];

/** A suite prints more than the 1 MiB that Node takes by itself. */
const MAX_OUTPUT_BYTES = 64 * 2 ** 20;

const [versions, parts] = split(process.argv.slice(2));
const scratch = mkdtempSync(join(tmpdir(), 'zpull-node-'));
try {
  const results = versions.map((version) => passesOn(version, parts));
  process.exitCode = results.every(Boolean) ? 0 : 1;
} finally {
  rmSync(scratch, { recursive: true });
}

function split(args: readonly string[]): [versions: readonly string[], parts: readonly string[]] {
  const dashes = args.indexOf('--');
  const [before, after] = dashes < 0 ? [args, []] : [args.slice(0, dashes), args.slice(dashes + 1)];
  return [before.length > 0 ? before : VERSIONS, after.length > 0 ? after : QUICK];
}

/** Prints a line when all tests pass, else what the runner printed. */
function passesOn(version: string, tests: readonly string[]): boolean {
  const directory = install(version);
  const startedMs = performance.now();
  const { status, stdout, stderr } = spawnSync(join(directory, 'node'), [RUNNER, ...tests], {
    env: { ...process.env, PATH: `${directory}${delimiter}${process.env['PATH']}` },
    encoding: 'utf8',
    maxBuffer: MAX_OUTPUT_BYTES,
  });
  if (status !== 0) process.stdout.write(stdout + stderr);
  const [, passed = '0'] = /^ℹ pass (\d+)$/m.exec(stdout) ?? [];
  const seconds = Math.round((performance.now() - startedMs) / 1000);
  const outcome = status === 0 ? `${passed} tests passed` : 'failed, see above';
  process.stdout.write(`Node ${programVersion(directory)}: ${outcome}, ${seconds} s\n`);
  return status === 0;
}

/** Installs a version, like `24` or `latest`; returns the directory of its program. */
function install(version: string): string {
  const platform = process.platform === 'win32' ? 'win' : process.platform;
  const name = `node-${platform}-${process.arch}`;
  const place = join(scratch, version);
  const args = ['install', '--ignore-scripts', '--no-save', '--prefix', place, `${name}@${version}`];
  const { status, stderr } = spawnSync('npm', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`npm could not install ${name}@${version}: ${stderr}`);
  return join(place, 'node_modules', name, 'bin');
}

function programVersion(directory: string): string {
  return spawnSync(join(directory, 'node'), ['--version'], { encoding: 'utf8' }).stdout.trim();
}

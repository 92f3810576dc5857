import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { tarEntries } from '../../src/format/tar-entries.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { fixtureCopy, readManifest } from '../support/layout.js';
import { flipByte, packFiles } from '../support/packs.js';
import { skipUnless, ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { sourceOf } from '../support/tars.js';
import { type Lifetime, temporaryDirectory } from '../support/temporary.js';

const TAG = 'chunked-v2';
const CONFIG_DIGEST = readManifest(FIXTURE_LAYOUT, TAG).config.digest;

async function prepare(t: Lifetime, layout = FIXTURE_LAYOUT) {
  const registry = await startSandbox(t, { layout });
  const directory = temporaryDirectory(t);
  const spool = join(directory, 'tmp');
  mkdirSync(spool);
  const store = join(directory, 'store');
  const env = { ...process.env, ZPULL_STORE: store, TMPDIR: spool };
  const start = (...args: string[]) => spawn(process.execPath, [...ZPULL, ...args, '-q'], { env });
  const zpull = async (...args: string[]) => {
    const child = start(...args);
    const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
    const [stdout, stderr] = await Promise.all([buffer(child.stdout), buffer(child.stderr)]);
    return { stdout, stderr: stderr.toString(), exitCode: await exit };
  };
  return { image: `${registry.host}/some/image:${TAG}`, directory, spool, store, env, zpull };
}

const namesIn = (tar: Buffer): string[] =>
  [...tarEntries(sourceOf(tar))].map(({ entry }) => entry.name.toString());

test('docker-archive:- has what the file has, layers first', async (t) => {
  const { zpull, image, directory } = await prepare(t);
  const file = join(directory, 'docker.tar');
  const toFile = await zpull('export', image, `docker-archive:${file}`);
  assert.equal(toFile.exitCode, 0, toFile.stderr);
  const { exitCode, stdout, stderr } = await zpull('export', image, 'docker-archive:-');
  assert.equal(exitCode, 0, stderr);
  const names = namesIn(stdout);
  assert.deepEqual([...names].sort(), namesIn(readFileSync(file)).sort());
  assert.deepEqual(names.slice(-2), ['manifest.json', `${CONFIG_DIGEST.slice(7)}.json`]);
  assert.equal(stdout.length, statSync(file).size);
  assert.equal(existsSync('-'), false);
});

test('a damaged layer ends docker-archive:- with 6, before anything names an image and without an end', async (t) => {
  const { zpull, image, store } = await prepare(t);
  await zpull('pull', image);
  const [pack = ''] = packFiles(store, '.pack');
  flipByte(pack, Math.floor(statSync(pack).size / 2));
  const { exitCode, stdout, stderr } = await zpull('export', image, 'docker-archive:-');
  assert.equal(exitCode, 6, stderr);
  assert.equal(stdout.includes('manifest.json'), false);
  assert.notEqual(stdout.length % 10240, 0);
});

test('oci-archive:- has the bytes of the file, alone on the standard output, and leaves nothing behind', async (t) => {
  const { zpull, image, directory, spool } = await prepare(t);
  const file = join(directory, 'oci.tar');
  await zpull('copy', image, `oci-archive:${file}:v2`);
  for (const args of [
    ['copy', image, 'oci-archive:-:v2'],
    ['pull', image, '--output', 'oci-archive:-:v2'],
  ]) {
    const { exitCode, stdout, stderr } = await zpull(...args);
    assert.equal(exitCode, 0, stderr);
    assert.ok(stdout.equals(readFileSync(file)), args[0]);
  }
  assert.deepEqual(readdirSync(spool), []);
});

test('a blob that proves false ends oci-archive:- with 6 before its first byte', async (t) => {
  const layout = fixtureCopy(t);
  flipByte(join(layout, 'blobs', readManifest(layout, TAG).layers[0]!.digest.replace(':', '/')), 5);
  const { zpull, image, spool } = await prepare(t, layout);
  const { exitCode, stdout } = await zpull('copy', image, 'oci-archive:-');
  assert.deepEqual([exitCode, stdout.length, readdirSync(spool)], [6, 0, []]);
});

test('a reader of an archive that has enough ends it quietly', {
  skip: skipUnless('sh', 'head'),
}, async (t) => {
  const { image, env, spool } = await prepare(t);
  for (const words of [`export ${image} docker-archive:-`, `copy ${image} oci-archive:-`]) {
    const script = `{ "$@" ${words} -q; echo $? >&2; } | head -c 1`;
    const child = spawn('sh', ['-c', script, 'sh', process.execPath, ...ZPULL], { env });
    const [stdout, stderr] = await Promise.all([buffer(child.stdout), buffer(child.stderr)]);
    assert.deepEqual([stdout.length, stderr.toString()], [1, '0\n'], words);
  }
  assert.deepEqual(readdirSync(spool), []);
});

test('a copy whose reader stopped reading is interrupted', { skip: skipUnless('mkfifo') }, async (t) => {
  const { env, directory, spool } = await prepare(t);
  const pipe = join(directory, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(pipe, 'w');
  t.after(() => [reader, writer].forEach(closeSync));
  const args = [...ZPULL, 'copy', `oci:${FIXTURE_LAYOUT}:${TAG}`, 'oci-archive:-', '-q'];
  const options = { env, timeout: 30_000, killSignal: 'SIGKILL' as const };
  const child = spawn(process.execPath, args, { ...options, stdio: ['ignore', writer, 'inherit'] });
  const exit = once(child, 'exit');
  // It has begun to write.
  while (child.exitCode === null && readOne(reader) === 0) await sleep(20);
  child.kill('SIGTERM');
  assert.deepEqual([await exit, readdirSync(spool)], [[143, null], []]);
});

/** How many bytes are read of a pipe that may be empty. */
function readOne(fd: number): number {
  try {
    return readSync(fd, Buffer.alloc(1));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    return 0;
  }
}

test('no archive goes to a terminal or beside --json', { skip: skipUnless('script') }, async (t) => {
  const { zpull, env } = await prepare(t);
  // Nothing is asked for: no registry has this name.
  const image = 'registry.invalid/image';
  for (const words of [
    ['export', image, 'tar:-'],
    ['export', image, 'docker-archive:-'],
    ['copy', image, 'oci-archive:-:tag'],
    ['pull', image, '--output', 'oci-archive:-'],
  ]) {
    const typed = [process.execPath, ...ZPULL, ...words].map((word) => `'${word}'`).join(' ');
    const shown = spawnSync('script', ['-qec', typed, '/dev/null'], { env, encoding: 'utf8' });
    assert.equal(shown.status, 2, shown.stdout);
    assert.match(shown.stdout, /would write an archive to the terminal\s+hint: /);
  }
  const json = await zpull('copy', image, 'oci-archive:-', '--json');
  const { error } = JSON.parse(json.stdout.toString()) as { error: { code: string } };
  assert.deepEqual([json.exitCode, error.code], [2, 'option-malformed']);
});

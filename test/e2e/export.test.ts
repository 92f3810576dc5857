import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { buffer, text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { type SandboxRegistry, startRegistry } from '../../src/sandbox/registry-server.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { listTar } from '../support/listing.js';
import { skipUnless, ZPULL } from '../support/programs.js';

const directory = mkdtempSync(join(tmpdir(), 'zpull-export-'));

/** The digest of chunked-v2. */
const V2 = 'sha256:3e4bbbeae6986e3a701e5f8457b7dc2e3b6f3b1d4bcc230af3fa5cad6e38110f';

let registry: SandboxRegistry;
let image: string;

before(async () => {
  registry = await startRegistry({ layout: FIXTURE_LAYOUT });
  image = `${registry.host}/some/image:chunked-v2`;
});
after(async () => {
  await registry.close();
  rmSync(directory, { recursive: true, force: true });
});

function start(...args: string[]): ChildProcess {
  const env = { ...process.env, ZPULL_STORE: join(directory, 'store') };
  return spawn(process.execPath, [...ZPULL, ...args], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

async function zpull(
  ...args: string[]
): Promise<{ exitCode: number | null; stdout: Buffer; stderr: string }> {
  const child = start(...args);
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([buffer(child.stdout!), text(child.stderr!)]);
  const [exitCode] = (await closed) as [number | null];
  return { exitCode, stdout, stderr };
}

test('tar: is written to a file, whose destination is printed, or to the standard output alone', async () => {
  const file = join(directory, 'all.tar');
  const toFile = await zpull('export', image, `tar:${file}`);
  assert.deepEqual([toFile.exitCode, toFile.stdout.toString()], [0, `tar:${file}\n`], toFile.stderr);
  assert.match(toFile.stderr, /^writing tar:.*: \d/m);
  const toStdout = await zpull('export', image, 'tar:-');
  assert.equal(toStdout.exitCode, 0, toStdout.stderr);
  assert.ok(toStdout.stdout.equals(readFileSync(file)));
  assert.ok(listTar(toStdout.stdout).length > 50);
});

test('a reader of tar:- that has enough ends it quietly', async () => {
  const child = start('export', image, 'tar:-', '-q');
  await once(child.stdout!, 'data');
  child.stdout!.destroy();
  const closed = once(child, 'close');
  const stderr = await text(child.stderr!);
  const [exitCode] = (await closed) as [number | null];
  assert.deepEqual([exitCode, stderr], [0, '']);
});

test('--path takes a file or a directory of the image, as a tar or as files', async () => {
  const local = `oci:${FIXTURE_LAYOUT}:chunked-v2`;
  const piped = await zpull('export', local, '--path', '/usr/lib', '-');
  assert.equal(piped.exitCode, 0, piped.stderr);
  const names = listTar(piped.stdout).map((line) => line.split(' | ')[0]);
  assert.ok(names.includes('lib/lib0.so') && names.every((name) => /^lib\b/.test(name ?? '')), names.join());
  const rootfs = join(directory, 'path');
  const files = await zpull('export', image, '--path', 'usr/lib/lib0.so', `rootfs:${rootfs}`);
  assert.deepEqual([files.exitCode, readdirSync(rootfs)], [0, ['lib0.so']], files.stderr);
  const absent = await zpull('export', image, '--path', '/usr/lob/x', '-');
  assert.deepEqual([absent.exitCode, absent.stdout.length], [3, 0]);
  assert.match(absent.stderr, /the nearest directory is "\/usr"\nhint: /);
  const layers = await zpull('export', image, '--path', '/usr', 'docker-archive:-');
  assert.equal(layers.exitCode, 2);
});

test('tar:- and --json cannot share the standard output', async () => {
  const { exitCode, stdout } = await zpull('export', image, 'tar:-', '--json');
  const { error } = JSON.parse(stdout.toString()) as { error: { code: string } };
  assert.deepEqual([exitCode, error.code], [2, 'option-malformed']);
});

test('rootfs: is written to a directory that is not there; a full one needs --force', async () => {
  const destination = `rootfs:${join(directory, 'rootfs')}`;
  const first = await zpull('export', image, destination);
  assert.deepEqual([first.exitCode, first.stdout.toString()], [0, `${destination}\n`], first.stderr);
  assert.match(first.stderr, /^writing rootfs:/m);
  const libraries = readdirSync(join(directory, 'rootfs/usr/lib'));
  assert.ok(libraries.includes('lib0.so'));
  const second = await zpull('export', image, destination);
  assert.equal(second.exitCode, 2);
  assert.match(second.stderr, /is not empty\nhint: .*--force\.\n$/);
  const third = await zpull('export', '--force', image, destination, '-q');
  assert.equal(third.exitCode, 0, third.stderr);
  assert.deepEqual(readdirSync(join(directory, 'rootfs/usr/lib')), libraries);
});

test('docker-archive: is written to a file, with the tag as it was given', async () => {
  const file = join(directory, 'docker.tar');
  const { exitCode, stdout, stderr } = await zpull('export', `docker://${image}`, `docker-archive:${file}`);
  assert.deepEqual([exitCode, stdout.toString()], [0, `docker-archive:${file}\n`], stderr);
  assert.ok(readFileSync(file).includes(`"RepoTags":["${image}"]`));
});

test('with --json the result is an object', async () => {
  const destination = `tar:${join(directory, 'json.tar')}`;
  const { exitCode, stdout, stderr } = await zpull('export', image, destination, '--json', '-q');
  assert.equal(exitCode, 0, stderr);
  const result = JSON.parse(stdout.toString()) as { destination: string; image: string };
  assert.deepEqual([result.destination, result.image], [destination, image]);
  assert.ok(existsSync(join(directory, 'json.tar')));
});

test('copy prints the digest; its layout has the image under the tag', async () => {
  const layout = join(directory, 'layout');
  const { exitCode, stdout, stderr } = await zpull('copy', image, `oci:${layout}:mine`);
  assert.deepEqual([exitCode, stdout.toString()], [0, `${V2}\n`], stderr);
  assert.match(readFileSync(join(layout, 'index.json'), 'utf8'), /"mine"/);
  const again = await zpull(
    'copy',
    `docker://${image}`,
    `oci-archive:${join(directory, 'layout.tar')}`,
    '--json',
    '-q',
  );
  const result = JSON.parse(again.stdout.toString()) as { digest: string; destination: string };
  assert.deepEqual([result.digest, result.destination], [V2, `oci-archive:${join(directory, 'layout.tar')}`]);
});

test('a destination that is none is wrong usage, and nothing is done', async () => {
  for (const [command, destination] of [
    ['copy', 'tar:x'],
    ['copy', 'oci:'],
    ['export', 'oci:x'],
    ['export', 'rootfs:'],
  ] as const) {
    const { exitCode, stdout, stderr } = await zpull(command, image, destination);
    assert.deepEqual([exitCode, stdout.length], [2, 0], destination);
    assert.match(stderr, /^zpull: .*\nhint: .+\n$/);
  }
});

test('pull --output pulls and exports; the digest is printed, or the tar alone', async () => {
  const rootfs = join(directory, 'output');
  const pulled = await zpull(image, '--output', `rootfs:${rootfs}`, '-q');
  assert.deepEqual([pulled.exitCode, pulled.stdout.toString()], [0, `${V2}\n`], pulled.stderr);
  assert.ok(existsSync(join(rootfs, 'usr/lib/lib0.so')));
  const forced = await zpull(image, '--output', `rootfs:${rootfs}`, '--force', '--json', '-q');
  const result = JSON.parse(forced.stdout.toString()) as { digest: string; destination: string };
  assert.deepEqual([result.digest, result.destination], [V2, `rootfs:${rootfs}`]);
  const tar = await zpull(image, '--output', 'tar:-', '-q');
  assert.equal(tar.exitCode, 0, tar.stderr);
  assert.ok(listTar(tar.stdout).length > 50);
});

test('pull --output writes layers, an archive for docker, a tar', async () => {
  const layers = join(directory, 'layers');
  const pulled = await zpull(image, '--output', `layers:${layers}`, '--json', '-q');
  const result = JSON.parse(pulled.stdout.toString()) as {
    files: string[];
    layers: Array<{ diffId: string }>;
  };
  assert.equal(pulled.exitCode, 0, pulled.stderr);
  const hashes = result.files.map((file) => createHash('sha256').update(readFileSync(file)).digest('hex'));
  assert.deepEqual(
    [hashes.map((hex) => `sha256:${hex}`), readdirSync(layers).sort()],
    [result.layers.map(({ diffId }) => diffId), hashes.map((hex) => `${hex}.tar`).sort()],
  );
  const docker = join(directory, 'output-docker.tar');
  const archived = await zpull(image, '--output', `docker-archive:${docker}`, '-q');
  assert.deepEqual([archived.exitCode, archived.stdout.toString()], [0, `${V2}\n`], archived.stderr);
  assert.ok(readFileSync(docker).includes(`"RepoTags":["${image}"]`));
  const tar = join(directory, 'output.tar');
  const flattened = await zpull(image, '--output', `tar:${tar}`, '-q');
  assert.deepEqual([flattened.exitCode, flattened.stdout.toString()], [0, `${V2}\n`], flattened.stderr);
  assert.ok(listTar(readFileSync(tar)).length > 50);
});

test('pull --output oci: has the image in the store and, as it was pulled, in the layout', async () => {
  const layout = join(directory, 'output-layout');
  const before = registry.requests.length;
  const pulled = await zpull(image, '--output', `oci:${layout}:mine`);
  assert.deepEqual([pulled.exitCode, pulled.stdout.toString()], [0, `${V2}\n`], pulled.stderr);
  const named = JSON.stringify(JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')).manifests);
  assert.ok(named.includes(V2) && named.includes('"mine"'));
  assert.ok(existsSync(join(layout, 'blobs', V2.replace(':', '/'))));
  // The tag could have another image by then.
  const asked = registry.requests.slice(before).filter(({ path }) => path.includes('/manifests/'));
  assert.deepEqual(
    asked.map(({ path }) => path.slice(path.lastIndexOf('/') + 1)),
    ['chunked-v2', V2],
  );
  const file = join(directory, 'output-layout.tar');
  const archived = await zpull(`${image}@${V2}`, '--output', `oci-archive:${file}`, '--json', '-q');
  const result = JSON.parse(archived.stdout.toString()) as {
    digest: string;
    destination: string;
    image: string;
  };
  assert.deepEqual([result.digest, result.destination], [V2, `oci-archive:${file}`]);
  const stored = await zpull(image, '--policy', 'never', '-q');
  assert.deepEqual([stored.exitCode, stored.stdout.toString()], [0, `${V2}\n`], stored.stderr);
});

test('--output takes one image and a destination that can be, --force needs it', async () => {
  const before = registry.requests.length;
  for (const [args, hint] of [
    [[image, image, '--output', 'tar:x'], /one by one/],
    [[image, '--output', `oci:${join(directory, 'never')}`, '--policy', 'never'], /leave out --policy/],
    [[image, '--output', 'oci:'], /oci:DIR/],
    [[image, '--output', 'zip:x'], /docker-archive:PATH/],
    [[image, '--output', `tar:${directory}`], /name a file/],
    [[image, '--output', `oci-archive:${directory}`], /name a file/],
    [[image, '--output', `oci:${directory}`], /name a layout/],
    [['export', image, `rootfs:${directory}`, '--policy', 'always'], /--force/],
    [[image, '--force'], /--output/],
  ] as const) {
    const { exitCode, stdout, stderr } = await zpull(...args);
    assert.deepEqual([exitCode, stdout.length], [2, 0], args.join(' '));
    assert.match(stderr, hint);
  }
  assert.equal(registry.requests.length, before, 'nothing was pulled in vain');
});

test('an export into what nobody reads ends by SIGTERM', { skip: skipUnless('mkfifo') }, async () => {
  await zpull('pull', image);
  const [unopened, unread] = ['unopened', 'unread'].map((name) => join(directory, name)) as [string, string];
  for (const pipe of [unopened, unread]) execFileSync('mkfifo', [pipe]);
  const reader = openSync(unread, constants.O_RDWR);
  const env = { ...process.env, ZPULL_STORE: join(directory, 'store') };
  for (const [destination, stdout] of [
    [`tar:${unopened}`, 'ignore'],
    [`tar:${unread}`, 'ignore'],
    ['tar:-', reader],
  ] as const) {
    const child = spawn(process.execPath, [...ZPULL, 'export', image, destination], {
      env,
      stdio: ['ignore', stdout, 'pipe'],
      timeout: 30_000,
      killSignal: 'SIGKILL',
    });
    const exit = once(child, 'exit');
    for await (const line of createInterface({ input: child.stderr! }))
      if (line.startsWith('writing tar:')) setTimeout(() => child.kill('SIGTERM'), 200);
    assert.deepEqual(await exit, [143, null], destination);
  }
  closeSync(reader);
});

test('only a tar goes into a pipe: other destinations refuse it at once', {
  skip: skipUnless('mkfifo'),
}, async () => {
  const pipe = join(directory, 'refused');
  execFileSync('mkfifo', [pipe]);
  for (const scheme of ['docker-archive', 'layers', 'rootfs']) {
    const { exitCode, stderr } = await zpull('export', image, `${scheme}:${pipe}`);
    assert.equal(exitCode, 2, stderr);
    assert.match(stderr, /not a (?:file|directory)/);
  }
});

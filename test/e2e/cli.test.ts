import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const BIN = join(ROOT, 'bin', 'zpull.cjs');
const LAYOUT = join(ROOT, 'test', 'fixtures', 'layout');
const directory = mkdtempSync(join(tmpdir(), 'zpull-cli-'));
const store = join(directory, 'store');

/** The images of the layout, named by digest in its index.json. */
const V1 = 'sha256:a7cbf2be864cf34761affaf764b246eb44d3095472f3c120e0a0b3bb18198e9c';
const V2 = 'sha256:3e4bbbeae6986e3a701e5f8457b7dc2e3b6f3b1d4bcc230af3fa5cad6e38110f';

/** The fields that a result and each of its layers have, in order of the alphabet. */
const RESULT_KEYS =
  'digest durationMs fetchedBytes image misses platform requests resumedBytes reusedBytes stages store verified';
const LAYER_KEYS =
  'diffId digest fetchedBytes format mediaType metadataBytes requests resumedBytes reusedBytes sizeBytes tarBytes';

after(() => rmSync(directory, { recursive: true, force: true }));

interface Ending {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(
  args: readonly string[],
  more: { env?: NodeJS.ProcessEnv; stdout?: number; bin?: string } = {},
): ChildProcess {
  return spawn(process.execPath, [...process.execArgv, more.bin ?? BIN, ...args], {
    env: { ...process.env, ZPULL_STORE: store, ...more.env },
    stdio: ['ignore', more.stdout ?? 'pipe', 'pipe'],
  });
}

async function ending(child: ChildProcess): Promise<Ending> {
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([child.stdout ? text(child.stdout) : '', text(child.stderr!)]);
  const [exitCode] = (await closed) as [number | null];
  return { exitCode, stdout, stderr };
}

async function zpull(...args: string[]): Promise<Ending> {
  return ending(start(args));
}

/** A `zpull serve` that listens, and its address. */
async function serve(...more: string[]): Promise<{ child: ChildProcess; address: string }> {
  const child = start(['serve', `oci:${LAYOUT}`, ...more]);
  const listening = once(child.stdout!, 'data') as Promise<[Buffer]>;
  const [chunk] = await Promise.race([listening, ending(child).then((early) => assert.fail(early.stderr))]);
  return { child, address: chunk.toString().trim() };
}

test('the version is that of the package', async () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  assert.deepEqual(await zpull('--version'), { exitCode: 0, stdout: `zpull ${version}\n`, stderr: '' });
});

test('the command runs through a symbolic link, as a global installation makes one', async () => {
  const bin = join(directory, 'zpull');
  symlinkSync(BIN, bin);
  const { exitCode, stdout } = await ending(start(['--version'], { bin }));
  assert.deepEqual([exitCode, stdout.startsWith('zpull ')], [0, true]);
});

test('help lists the commands, in English whatever LANG says', async () => {
  const { exitCode, stdout, stderr } = await ending(
    start(['--help'], { env: { LANG: 'de_DE.UTF-8', LC_ALL: 'de_DE.UTF-8' } }),
  );
  assert.deepEqual([exitCode, stderr], [0, '']);
  assert.match(stdout, /^Commands /m);
  for (const name of ['pull', 'export', 'copy', 'store', 'serve', 'demo', 'completion']) {
    assert.match(stdout, new RegExp(`^ {2}${name}\\b`, 'm'));
  }
});

for (const name of ['pull', 'export', 'copy', 'store', 'serve', 'demo']) {
  test(`zpull ${name} --help has an example`, async () => {
    const { exitCode, stdout } = await zpull(name, '--help');
    assert.equal(exitCode, 0);
    assert.match(stdout, new RegExp(`^Examples:\\n.*${name === 'pull' ? 'zpull ' : `zpull ${name}`}`, 'm'));
  });
}

test('wrong usage is a sentence and a hint on stderr, exit code 2, and nothing is done', async () => {
  for (const args of [
    [],
    ['expotr', 'alpine', 'tar:x'],
    ['version', 'alpine'],
    ['plan', 'alpine', 'debian'],
    ['plan', 'docker-daemon:alpine'],
    ['copy', 'containers-storage:alpine', `oci:${directory}/copy`],
    ['--paltform', 'linux/amd64', 'alpine'],
    ['--workers', 'many', 'alpine'],
    ['--store', store, '--store', store, 'alpine'],
    ['export', 'alpine', 'zip:x'],
    ['export', 'alpine', 'tar:'],
    ['serve', LAYOUT],
    ['serve', `oci:${directory}`],
    ['serve', `oci:${LAYOUT}`, '--faults', join(directory, 'none.json')],
  ]) {
    const { exitCode, stdout, stderr } = await zpull(...args);
    assert.deepEqual([exitCode, stdout], [2, ''], args.join(' '));
    assert.match(stderr, /^zpull: .+\nhint: .+\n$/, args.join(' '));
  }
  assert.equal(existsSync(store), false);
});

test('with --json an error is an object on stdout, and stderr stays empty', async () => {
  const { exitCode, stdout, stderr } = await zpull('--json', '--paltform', 'x', 'alpine');
  assert.deepEqual([exitCode, stderr], [2, '']);
  assert.deepEqual(JSON.parse(stdout), {
    error: {
      code: 'option-malformed',
      message: 'zpull pull has no option --paltform',
      hint: 'did you mean --platform? zpull pull --help lists them',
    },
  });
});

test('a stack is shown with --debug only', async () => {
  const quiet = await zpull('--workers', '0', 'alpine');
  const loud = await zpull('--workers', '0', 'alpine', '--debug');
  assert.doesNotMatch(quiet.stderr, /^ {4}at /m);
  assert.match(loud.stderr, /^ {4}at /m);
});

test('store path is told without a store, with --json as an object', async () => {
  assert.equal((await zpull('store', 'path')).stdout, `${store}\n`);
  const { stdout } = await zpull('store', 'path', '--store', '/elsewhere', '--json');
  assert.deepEqual(JSON.parse(stdout), { store: '/elsewhere' });
});

test('a closed pipe ends a command quietly', async () => {
  const child = start(['--help']);
  child.stdout!.destroy();
  const closed = once(child, 'close');
  const stderr = await text(child.stderr!);
  const [exitCode] = (await closed) as [number | null];
  assert.deepEqual([exitCode, stderr], [0, '']);
});

test('a result that cannot be written is an error', {
  skip: !existsSync('/dev/full') && 'no /dev/full here',
}, async () => {
  const { exitCode, stderr } = await ending(start(['store', 'path'], { stdout: openSync('/dev/full', 'w') }));
  assert.equal(exitCode, 1);
  assert.match(stderr, /^zpull: cannot write to standard output/);
});

for (const [signal, exitCode] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`serve prints its address, answers, and ends on ${signal} with exit code ${exitCode}`, async () => {
    const { child, address } = await serve();
    const { status } = await fetch(`http://${address}/v2/`);
    assert.equal(status, 200);
    child.kill(signal);
    const [code] = (await once(child, 'close')) as [number | null];
    assert.equal(code, exitCode);
  });
}

test('serve breaks its answers as a file of rules says', async () => {
  const faults = join(directory, 'faults.json');
  writeFileSync(faults, '[{"match": {"nth": 1}, "then": {"status": 503}}]');
  const { child, address } = await serve('--faults', faults);
  const first = await fetch(`http://${address}/v2/`);
  const second = await fetch(`http://${address}/v2/`);
  child.kill();
  assert.deepEqual([first.status, second.status], [503, 200]);
  await once(child, 'close');
});

test('a pull prints the digest of each image, and ends as the first that failed', async () => {
  const { child, address } = await serve();
  const images = ['chunked-v1', 'none', 'chunked-v2'].map((tag) => `${address}/a/b:${tag}`);
  const { exitCode, stdout, stderr } = await zpull('-q', ...images, '127.0.0.1:1/a');
  child.kill();
  assert.equal(exitCode, 3);
  assert.equal(stdout, `${V1}\n${V2}\n`);
  assert.match(stderr, /^zpull: .*none.*\nhint: .+\nzpull: .*127\.0\.0\.1:1.*\nhint: .+\n$/);
  await once(child, 'close');
});

test('errors name their image, and several images end with a summary', async () => {
  const { child, address } = await serve();
  const own = ['--store', join(directory, 'several')];
  const [good, none] = ['chunked-v1', 'none'].map((tag) => `${address}/a/b:${tag}`);
  const json = await zpull(...own, '--json', none!, good!, 'a/UPPER');
  const lines = json.stdout.trimEnd().split('\n');
  const printed = lines.map((line) => JSON.parse(line) as { image?: string; error?: { image: string } });
  assert.deepEqual(
    printed.map(({ image, error }) => error?.image ?? image),
    [none, good, 'a/UPPER'],
  );
  assert.match(
    json.stderr,
    /^1 image pulled, 2 failed, fetched [\d.]+ kB in [\d.]+ s\nfailed: \S+:none \(image-not-found\)\nfailed: a\/UPPER \(reference-malformed\)\n$/m,
  );
  const quiet = await zpull(...own, '-q', none!, good!);
  assert.match(quiet.stderr, /^zpull: .+none.*\nhint: .+\n$/);
  for (const words of [
    ['inspect', none!],
    ['export', none!, `tar:${directory}/x`],
    ['export', none!, 'tar:/not/there'],
    ['export', none!, 'zip:x'],
    ['copy', none!, `oci:${directory}/x`],
    ['store', 'rm', none!],
  ]) {
    const { stdout } = await zpull(...own, '--json', '-q', ...words);
    assert.equal((JSON.parse(stdout) as { error: { image: string } }).error.image, none, words[0]);
  }
  child.kill();
  await once(child, 'close');
});

test('with --json a pull is the documented object on stdout, and its events may be JSON on stderr', async () => {
  const { child, address } = await serve();
  const own = ['--store', join(directory, 'json'), '--json', '--progress', 'json'];
  const { exitCode, stdout, stderr } = await zpull(...own, `${address}/a/b:chunked-v1`);
  child.kill();
  assert.equal(exitCode, 0, stderr);
  const { layers, ...result } = JSON.parse(stdout) as Record<string, unknown> & { layers: object[] };
  assert.deepEqual(Object.keys(result).toSorted().join(' '), RESULT_KEYS);
  for (const layer of layers) assert.deepEqual(Object.keys(layer).toSorted().join(' '), LAYER_KEYS);
  const lines = stderr.trimEnd().split('\n');
  const events = lines.map((line) => (JSON.parse(line) as { event: string }).event);
  assert.equal(events[0], 'resolving');
  assert.ok(events.includes('planned') && !events.includes('debug'));
  await once(child, 'close');
});

test('with --debug each request is a line, without it none is', async () => {
  const { child, address } = await serve();
  try {
    const image = `${address}/debugged:chunked-v1`;
    const silent = await zpull('--store', join(directory, 'silent'), image);
    const told = await zpull('--debug', '--json', '--store', join(directory, 'debugged'), image);
    const all = told.stderr.split('\n').filter((line) => /^(GET|HEAD) /.test(line));
    assert.match(all[0] ?? '', /^GET [\d.:]+\/v2\/debugged\/manifests\/chunked-v1: 200, \d+ bytes, \d+ ms$/);
    const lines = all.filter((line) => line.includes('bytes='));
    const { requests } = JSON.parse(told.stdout) as { requests: number };
    assert.equal(lines.length, requests, told.stderr);
    for (const line of lines)
      assert.match(
        line,
        /^GET [\d.:]+\/v2\/debugged\/blobs\/sha256:[0-9a-f]{64} bytes=\d+-\d+: 206, \d+ bytes, \d+ ms$/,
      );
    assert.doesNotMatch(silent.stderr, /^GET /m);
  } finally {
    child.kill();
  }
});

test('an export takes what the store has, without the registry', async () => {
  const { child, address } = await serve();
  const image = `${address}/c/d:chunked-v1`;
  assert.equal((await zpull('-q', image)).exitCode, 0);
  child.kill();
  await once(child, 'close');
  const destination = `layers:${join(directory, 'layers')}`;
  const { exitCode, stdout, stderr } = await zpull('export', image, destination, '--json', '-q');
  assert.equal(exitCode, 0, stderr);
  const result = JSON.parse(stdout) as { destination: string; digest: string; files: string[] };
  assert.deepEqual([result.destination, result.digest, result.files.length], [destination, V1, 3]);
  assert.ok(result.files.every((path) => existsSync(path)));
});

for (const [signal, exitCode, code] of [
  ['SIGINT', 130, 'interrupted'],
  ['SIGTERM', 143, 'terminated'],
] as const) {
  test(`${signal} ends a pull that hangs with exit code ${exitCode}`, async () => {
    const faults = join(directory, `${signal}.json`);
    writeFileSync(
      faults,
      '[{"match": {"path": "/blobs/", "range": "any"}, "then": {"stallAfterBytes": 100}}]',
    );
    const { child: server, address } = await serve('--faults', faults);
    const own = ['--store', join(directory, signal), '--json', '--progress', 'json'];
    const pull = start([...own, `${address}/a/b:chunked-v1`]);
    // Now it asks for layers, none of which will come.
    for await (const chunk of pull.stderr!) if (String(chunk).includes('"resolved"')) break;
    pull.kill(signal);
    const closed = once(pull, 'close');
    const { error } = JSON.parse(await text(pull.stdout!)) as { error: { code: string; hint: string } };
    const [ended] = (await closed) as [number | null];
    server.kill();
    assert.deepEqual([ended, error.code], [exitCode, code]);
    assert.match(error.hint, /run the same command again/);
    await once(server, 'close');
  });
}

test('the demo pulls a sample image, its next version and that once more', async () => {
  const { exitCode, stdout, stderr } = await zpull('demo', '--files', '1', '--json');
  assert.equal(exitCode, 0, stderr);
  const { pulls } = JSON.parse(stdout) as { pulls: readonly { fetchedBytes: number }[] };
  assert.deepEqual(
    pulls.map(({ fetchedBytes }) => fetchedBytes > 0),
    [true, true, false],
  );
});

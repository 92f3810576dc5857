import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

interface Ending {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command in a home of its own, with this on its standard input. */
async function zpull(
  home: string,
  args: readonly string[],
  input = '',
  env: NodeJS.ProcessEnv = {},
): Promise<Ending> {
  const { PATH } = process.env;
  const child = spawn(process.execPath, [...ZPULL, ...args, '--store', join(home, 'store')], {
    env: { PATH, HOME: home, ...env },
  });
  child.stdin.end(input);
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [exitCode] = (await closed) as [number | null];
  return { exitCode, stdout, stderr };
}

/** A registry whose token server knows one user, and an image of it. */
async function registryFor(t: TestContext) {
  const registry = await startSandbox(t, { requireToken: { credentials: 'me:pass' } });
  return { registry, images: ['chunked-v1', 'chunked-v2'].map((tag) => `${registry.host}/team/app:${tag}`) };
}

test('a password from standard input is for all images, and one on the command line too', async (t) => {
  const { registry, images } = await registryFor(t);
  for (const [args, input] of [
    [['--username', 'me', '--password-stdin'], 'pass\n'],
    [['--creds', 'me:pass'], ''],
  ] as const) {
    const { exitCode, stdout, stderr } = await zpull(temporaryDirectory(t), [...args, ...images], input);
    assert.equal(exitCode, 0, stderr);
    assert.equal(stdout.split('\n').length, 3);
  }
  // The images are in one repository.
  assert.equal(registry.requests.filter(({ path }) => path === '/token').length, 2, 'one token a command');
});

test('who is refused is told where to log in, and a wrong file by its name', async (t) => {
  const { registry, images } = await registryFor(t);
  const [image = ''] = images;
  const home = temporaryDirectory(t);
  const refused = await zpull(home, [image]);
  assert.equal(refused.exitCode, 4);
  assert.match(
    refused.stderr,
    new RegExp(`log in with "docker login ${registry.host}".*${home}/\\.docker/config\\.json`),
  );
  const absent = await zpull(home, ['--authfile', join(home, 'none.json'), image]);
  assert.equal(absent.exitCode, 2);
  assert.match(absent.stderr, /there is no file .*none\.json/);
  writeFileSync(join(home, 'bad.json'), '{"auths": {');
  const malformed = await zpull(home, [image], '', { REGISTRY_AUTH_FILE: join(home, 'bad.json') });
  assert.equal(malformed.exitCode, 2);
  assert.match(malformed.stderr, /bad\.json cannot be read: it is not JSON/);
});

/** Runs a line of bash in a home of its own, in which `zpull` is the command; `IMAGES` are those. */
async function inBash(home: string, images: readonly string[], line: string): Promise<Ending> {
  const { PATH } = process.env;
  const script = `zpull() { "${[process.execPath, ...ZPULL].join('" "')}" --store "$HOME/store" "$@"; }; ${line}`;
  const child = spawn('bash', ['-c', script], {
    env: { PATH, HOME: home, IMAGES: images.join(' ') },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [exitCode] = (await closed) as [number | null];
  return { exitCode, stdout, stderr };
}

test('credentials come through a pipe that somebody writes, once for all images', async (t) => {
  const { registry, images } = await registryFor(t);
  const auth = Buffer.from('me:pass').toString('base64');
  const json = JSON.stringify({ auths: { [registry.host]: { auth } } });
  for (const line of [
    `zpull --authfile <(sleep 0.3; echo '${json}') $IMAGES`,
    `echo '${json}' | zpull --authfile /dev/stdin $IMAGES`,
    `zpull --authfile /dev/fd/5 $IMAGES 5< <(echo '${json}')`,
    `mkfifo f; echo '${json}' > f & sleep 0.2; REGISTRY_AUTH_FILE=f zpull $IMAGES`,
  ]) {
    const home = temporaryDirectory(t);
    const { exitCode, stderr } = await inBash(home, images, `cd "$HOME"; ${line}`);
    assert.equal(exitCode, 0, `${line}: ${stderr}`);
  }
});

test('what is no file and what nobody writes to is refused as a file of credentials', async (t) => {
  const { images } = await registryFor(t);
  for (const [line, words] of [
    ['mkfifo f; zpull --authfile f $IMAGES', /f is a pipe that nobody writes to/],
    ['zpull --authfile /dev/zero $IMAGES', /\/dev\/zero is not a regular file/],
    ['zpull --authfile <(cat /dev/zero) $IMAGES', /is larger than 1 MiB/],
    ['zpull --authfile "$HOME" $IMAGES', /is a directory/],
    ['ln -s /dev/zero z; zpull serve oci:. --faults z', /z is not a regular file/],
  ] as const) {
    const home = temporaryDirectory(t);
    const { exitCode, stderr } = await inBash(home, images.slice(0, 1), `cd "$HOME"; ${line}`);
    assert.equal(exitCode, 2, `${line}: ${stderr}`);
    assert.match(stderr, words);
  }
});

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const BIN = fileURLToPath(new URL('../../../bin/zpull.cjs', import.meta.url));

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
  const child = spawn(process.execPath, [BIN, ...args, '--store', join(home, 'store')], {
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
    new RegExp(`${home}/\\.docker/config\\.json: log in with "docker login ${registry.host}"`),
  );
  const absent = await zpull(home, ['--authfile', join(home, 'none.json'), image]);
  assert.equal(absent.exitCode, 2);
  assert.match(absent.stderr, /there is no file .*none\.json/);
  writeFileSync(join(home, 'bad.json'), '{"auths": {');
  const malformed = await zpull(home, [image], '', { REGISTRY_AUTH_FILE: join(home, 'bad.json') });
  assert.equal(malformed.exitCode, 2);
  assert.match(malformed.stderr, /bad\.json cannot be read: it is not JSON/);
});

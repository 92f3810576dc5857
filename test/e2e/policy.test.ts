import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

/** A home whose policy.json asks this of all images. */
function homeWith(t: TestContext, type: string): string {
  const home = temporaryDirectory(t);
  const path = join(home, '.config/containers/policy.json');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, JSON.stringify({ default: [{ type }] }));
  return home;
}

async function zpull(home: string, ...args: string[]) {
  const { PATH } = process.env;
  const child = spawn(process.execPath, [...ZPULL, ...args, '--store', join(home, 'store')], {
    env: { PATH, HOME: home },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const closed = once(child, 'close');
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [exitCode] = (await closed) as [number | null];
  return { exitCode, stdout, stderr };
}

test('what the policy rejects is not even asked for, by no command', async (t) => {
  const registry = await startSandbox(t);
  const image = `${registry.host}/x:chunked-v1`;
  const home = homeWith(t, 'reject');
  for (const words of [
    ['pull', image],
    ['plan', image],
    ['inspect', image],
    ['export', image, `rootfs:${home}/files`],
    ['copy', image, `oci:${home}/layout`],
    ['pull', '--insecure-policy', '-q', image],
  ]) {
    const { exitCode, stdout, stderr } = await zpull(home, ...words);
    assert.equal(exitCode, 4, `${words.join(' ')}: ${stderr}`);
    assert.match(stderr, new RegExp(`${home}/\\.config/containers/policy\\.json rejects ${registry.host}/x`));
    assert.match(stderr, /hint: /);
    assert.equal(stdout, '');
  }
  assert.equal(registry.requests.length, 0);
});

test('a signature that cannot be checked ends a pull, unless the option lets it go on, and then it is told', async (t) => {
  const registry = await startSandbox(t);
  const image = `${registry.host}/x:chunked-v1`;
  const home = homeWith(t, 'signedBy');
  const refused = await zpull(home, 'pull', '--json', image);
  assert.equal(refused.exitCode, 8, refused.stderr);
  assert.match(refused.stdout, /"code":"unsupported".*policy\.json asks for a signature/);
  assert.equal(registry.requests.length, 0);
  const warning = /^warning: .*policy\.json asks for a signature of .* it checks digests only$/m;
  for (const [options, told] of [
    [[], true],
    [['--progress', 'none'], true],
    [['--quiet'], false],
  ] as const) {
    const { exitCode, stderr } = await zpull(home, 'pull', '--insecure-policy', ...options, image);
    assert.equal(exitCode, 0, stderr);
    assert.equal(warning.test(stderr), told, stderr);
    if (options.length > 0) assert.equal(stderr.trimEnd().split('\n').length, 1);
  }
  const other = await zpull(home, 'inspect', '--insecure-policy', image);
  assert.equal(other.exitCode, 0, other.stderr);
});

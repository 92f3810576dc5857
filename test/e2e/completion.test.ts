import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { pullImage } from '../../src/api/pull.js';
import { FILE } from '../support/file-fixtures.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { skipUnless, skipUnlessThere, ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const directory = temporaryDirectory(FILE);
const script = (shell: string): string =>
  execFileSync(process.execPath, [...ZPULL, 'completion', shell], { encoding: 'utf8' });

/** A store with one image, and a directory with a layout, a file and `zpull` on PATH. */
const prepared = (async () => {
  const { host } = await startSandbox(FILE);
  const store = join(directory, 'store');
  await pullImage(`${host}/a/b:chunked-v1`, { store });
  const work = join(directory, 'work');
  mkdirSync(join(work, 'bin'), { recursive: true });
  symlinkSync(ZPULL.at(-1)!, join(work, 'bin', 'zpull'));
  cpSync(FIXTURE_LAYOUT, join(work, 'layout'), { recursive: true });
  writeFileSync(join(work, 'login.json'), '');
  const env = { ...process.env, PATH: `${join(work, 'bin')}:${process.env['PATH']}`, ZPULL_STORE: store };
  return { host, work, env };
})();

/** What bash offers for a line with the cursor at its end, as it would put it in place of the last part. */
async function inBash(line: string): Promise<string[]> {
  const { work, env } = await prepared;
  const code = `${script('bash')}
COMP_WORDBREAKS=$' \\t\\n"\\'@><=;|&(:' COMP_LINE=$1 COMP_POINT=\${#1}
_zpull
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const answer = execFileSync('bash', ['-c', code, 'bash', line], { cwd: work, env, encoding: 'utf8' });
  return answer.split('\n').filter((each) => each !== '');
}

test('bash completes commands, options, their values, images of the store, paths and tags of layouts', {
  skip: skipUnless('bash'),
}, async () => {
  const { host } = await prepared;
  const [address, port] = host.split(':');
  for (const [line, ...offered] of [
    ['zpull pu', 'pull'],
    ['zpull store ', 'ls', 'rm', 'prune', 'verify', 'path'],
    ['zpull export x --plat', '--platform'],
    ['zpull --progress pl', 'plain'],
    // Of words with = : and @ bash replaces the last part.
    ['zpull --progress=pl', 'plain'],
    ['zpull --authfile l', 'layout/', 'login.json'],
    [`zpull ${address}:`, `${port}/a/b:chunked-v1`],
    [`zpull store rm ${host}/a/b:ch`, 'chunked-v1'],
    [`zpull tags ${address?.slice(0, 6)}`, `${host}/a/b`],
    ['zpull oci:la', 'layout/'],
    ['zpull -q inspect oci:layout:chunked-v', 'chunked-v1', 'chunked-v2'],
    ['zpull export x roo', 'rootfs:'],
    ['zpull copy x oci:', 'bin/', 'layout/'],
    ['zpull completion f', 'fish'],
    ['zpull --nonsense=', ''],
    ['zpull oci:nowhere:', ''],
  ] as const) {
    assert.deepEqual(
      await inBash(line),
      offered.filter((each) => each !== ''),
      line,
    );
  }
});

test('fish completes with explanations', { skip: skipUnlessThere('fish') }, async () => {
  const { work, env } = await prepared;
  const ask = (line: string) => {
    const code = `${script('fish')}\ncomplete -C '${line}'`;
    return execFileSync('fish', ['--no-config', '-c', code], { cwd: work, env, encoding: 'utf8' });
  };
  assert.match(ask('zpull ins'), /^inspect\ttell what an image is made of/m);
  assert.match(ask('zpull oci:layout:chunked-v1'), /^oci:layout:chunked-v1$/m);
});

test('the script for zsh has no errors of syntax', { skip: skipUnlessThere('zsh') }, () => {
  execFileSync('zsh', ['-n'], { input: script('zsh') });
});

test('a shell that zpull does not know is refused with those that it knows', () => {
  assert.throws(
    () => script('tcsh'),
    /zpull completion has no shell "tcsh"\nhint: there is: bash, zsh, fish/,
  );
});

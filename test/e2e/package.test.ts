/** The library as the packed tarball has it, used by the examples. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, readdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { MANIFEST_DIGEST } from '../support/fixture-layout.js';
import { skipUnless } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const ROOT = join(import.meta.dirname, '../../..');
const skip = skipUnless('npm', 'tar');

/** A project in which the packed zpull is installed. */
function installPacked(t: TestContext): string {
  const project = temporaryDirectory(t);
  const modules = join(project, 'node_modules');
  mkdirSync(modules);
  const pack = ['pack', '--ignore-scripts', '--silent', '--pack-destination', project];
  const file = execFileSync('npm', pack, { cwd: ROOT, encoding: 'utf8' }).trim();
  execFileSync('tar', ['-xzf', join(project, file), '-C', project]);
  renameSync(join(project, 'package'), join(modules, 'zpull'));
  // All of them: a dependency finds its own beside itself.
  for (const name of readdirSync(join(ROOT, 'node_modules'))) {
    if (!name.startsWith('.')) symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
  }
  cpSync(join(ROOT, 'examples'), project, { recursive: true });
  writeFileSync(join(project, 'package.json'), '{"type": "module"}');
  return project;
}

/** The environment without a size for libuv's pool. */
const { UV_THREADPOOL_SIZE: _, ...ENV } = process.env;

async function run(project: string, args: readonly string[], env = ENV) {
  const child = spawn(process.execPath, args, { cwd: project, env });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, ...output };
}

test('the examples run with the packed library, which can be required as well', { skip }, async (t) => {
  const { host } = await startSandbox(t);
  const image = `${host}/x:chunked-v1`;
  const project = installPacked(t);

  await t.test('a pull with progress, and one warning about the pool of threads', async () => {
    const { code, stdout, stderr } = await run(project, ['pull-with-progress.js', image]);
    assert.deepEqual([code, stdout], [0, `${MANIFEST_DIGEST}\n`], stderr);
    assert.match(stderr, /^\d+ of \d+ bytes$/m);
    assert.equal(stderr.split('[ZPULL_THREADPOOL]').length, 2, stderr);
    const again = ['pull-with-progress.js', image, './other'];
    const quiet = await run(project, again, { ...ENV, UV_THREADPOOL_SIZE: '4' });
    assert.doesNotMatch(quiet.stderr, /ZPULL/);
    const missing = await run(project, ['pull-with-progress.js', `${host}/x:none`]);
    assert.deepEqual([missing.code, missing.stdout], [3, '']);
    assert.match(missing.stderr, /^hint: /m);
  });

  await t.test('a list of images, of which one is missing', async () => {
    writeFileSync(join(project, 'images.txt'), `${image}\n${host}/x:chunked-v2\n${host}/x:none\n`);
    const { code, stdout, stderr } = await run(project, ['mirror-list.js', 'images.txt', 'layout']);
    assert.deepEqual([code, stdout.split('\n')[0]], [3, `${MANIFEST_DIGEST} ${image}`], stderr);
    assert.match(stderr, new RegExp(`^${host}/x:none: `, 'm'));
    const pulled = await run(project, ['pull-with-progress.js', `oci:layout:${host}/x:chunked-v2`]);
    assert.equal(pulled.code, 0, pulled.stderr);
  });

  await t.test('one file, and a tar by HTTP', async () => {
    const list = `import { Client } from 'zpull';
      const client = new Client({ store: './store' });
      const files = await client.list(${JSON.stringify(image)});
      console.log(files.find(({ type, sizeBytes }) => type === 'file' && sizeBytes > 0).path);
      await client.close();`;
    writeFileSync(join(project, 'list.js'), list);
    const path = (await run(project, ['list.js'])).stdout.trim();
    const { code, stdout, stderr } = await run(project, ['read-file.js', image, path, './third']);
    assert.deepEqual([code, stdout.length > 0], [0, true], stderr);
    const service = spawn(process.execPath, ['http-service.js'], { cwd: project, env: ENV });
    const [line] = (await once(service.stdout, 'data')) as [Buffer];
    const origin = line.toString().trim();
    const answer = await fetch(`${origin}/tar?image=${encodeURIComponent(image)}`);
    assert.deepEqual([answer.status, answer.headers.get('etag')], [200, `"${MANIFEST_DIGEST}"`]);
    assert.ok((await answer.arrayBuffer()).byteLength > 10_000);
    assert.equal((await fetch(`${origin}/tar?image=${host}/x:none`)).status, 404);
    service.kill('SIGTERM');
    const [exitCode] = (await once(service, 'exit')) as [number];
    assert.equal(exitCode, 0);
  });

  await t.test('require', async () => {
    writeFileSync(join(project, 'main.cjs'), "console.log(typeof require('zpull').Client);");
    const { code, stdout, stderr } = await run(project, ['main.cjs']);
    assert.deepEqual([code, stdout, stderr], [0, 'function\n', '']);
  });
});

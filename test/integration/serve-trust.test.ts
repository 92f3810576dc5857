import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parseDigest } from '../../src/format/digest.js';
import { openBlob, openLayout } from '../../src/sandbox/layout-reader.js';
import { startRegistry } from '../../src/sandbox/registry-server.js';
import { FIXTURE_LAYOUT, LAYER_DIGEST } from '../support/fixture-layout.js';
import { ask } from '../support/http.js';
import { plant } from '../support/planted.js';
import { skipUnless, ZPULL } from '../support/programs.js';
import { temporaryDirectory } from '../support/temporary.js';

const BLOB_PATH = `/v2/x/blobs/${LAYER_DIGEST}`;
const HEX = LAYER_DIGEST.slice(7);

function layoutOf(t: TestContext): string {
  const layout = join(temporaryDirectory(t), 'layout');
  cpSync(FIXTURE_LAYOUT, layout, { recursive: true });
  return layout;
}

async function serve(t: TestContext, options: Parameters<typeof startRegistry>[0]) {
  const registry = await startRegistry(options);
  t.after(() => registry.close());
  return registry;
}

test('a blob that is a link, a FIFO or behind a link is not served', {
  skip: skipUnless('mkfifo'),
}, async (t) => {
  const layout = layoutOf(t);
  const { origin } = await serve(t, { layout });
  const secret = join(temporaryDirectory(t), 'secret');
  writeFileSync(secret, 'a secret');
  const blob = join(layout, 'blobs/sha256', HEX);
  const manifest = '/v2/x/manifests/chunked-v1';
  assert.equal((await ask(`${origin}${BLOB_PATH}`)).status, 200);
  for (const kind of ['link', 'fifo', 'zeros', 'directory'] as const) {
    plant(kind, [blob], secret);
    for (const method of ['GET', 'HEAD'])
      assert.equal((await ask(`${origin}${BLOB_PATH}`, { method })).status, 404, kind);
  }
  rmSync(blob, { recursive: true });
  assert.equal((await ask(`${origin}${manifest}`)).status, 200);
  for (const name of ['blobs/sha256', 'blobs']) {
    const moved = join(layout, '..', name.replace('/', '-'));
    renameSync(join(layout, name), moved);
    symlinkSync(moved, join(layout, name));
    assert.equal((await ask(`${origin}${manifest}`)).status, 404, name);
    rmSync(join(layout, name));
    renameSync(moved, join(layout, name));
  }
});

test('a directory that is swapped for a link after a blob was found in it is not followed', (t) => {
  const layout = layoutOf(t);
  const blob = openLayout(layout).blob(parseDigest(LAYER_DIGEST, 'blob'))!;
  const elsewhere = temporaryDirectory(t);
  writeFileSync(join(elsewhere, HEX), 'a secret');
  renameSync(join(layout, 'blobs/sha256'), join(layout, 'blobs/aside'));
  symlinkSync(elsewhere, join(layout, 'blobs/sha256'));
  assert.throws(() => openBlob(blob), { code: 'store-broken' });
});

test('an index.json that is no file ends serve before it listens', {
  skip: skipUnless('mkfifo'),
}, async (t) => {
  const secret = join(temporaryDirectory(t), 'secret');
  writeFileSync(secret, '{"manifests": []}');
  for (const kind of ['fifo', 'zeros', 'link', 'directory', 'huge'] as const) {
    const layout = temporaryDirectory(t);
    plant(kind, [join(layout, 'index.json')], secret);
    const args = [...ZPULL, 'serve', `oci:${layout}`];
    const child = spawn(process.execPath, args, { timeout: 60_000, killSignal: 'SIGKILL' });
    let said = '';
    child.stderr.on('data', (chunk) => {
      said += chunk;
    });
    const [code] = (await once(child, 'close')) as [number | null];
    assert.equal(code, 2, `${kind}: ${said}`);
    assert.match(said, /index\.json .*\nhint: /, kind);
  }
});

test('serve answers for its own names and addresses alone', async (t) => {
  const layout = layoutOf(t);
  const statusOf = async (origin: string, host: string) =>
    (await ask(`${origin}/v2/`, { headers: { Host: host } })).status;
  const { origin, host } = await serve(t, { layout });
  const port = host.split(':')[1];
  for (const own of [
    host,
    '127.0.0.1',
    '127.8.9.1:5000',
    `localhost:${port}`,
    'LocalHost',
    'a.localhost',
    '[::1]:80',
  ])
    assert.equal(await statusOf(origin, own), 200, own);
  const others = [
    'evil.example',
    `evil.example:${port}`,
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    '192.0.2.1',
    '[2001:db8::1]',
    'a b',
    'x@127.0.0.1',
    '127.0.0.1:80:80',
  ];
  for (const other of others) assert.equal(await statusOf(origin, other), 421, other);
  const wide = await serve(t, { layout, host: '0.0.0.0' });
  const at = `http://127.0.0.1:${wide.host.split(':')[1]}`;
  for (const [name, status] of [
    ['192.0.2.1', 200],
    ['localhost', 200],
    ['evil.example', 421],
  ] as const)
    assert.equal(await statusOf(at, name), status, name);
  const named = await serve(t, { layout, host: 'localhost' });
  assert.equal(await statusOf(named.origin.replace('localhost', '127.0.0.1'), 'evil.example'), 421);
  assert.equal(await statusOf(named.origin.replace('localhost', '127.0.0.1'), 'localhost'), 200);
});

test('what serve remembers of requests is bounded in bytes, whatever their URLs', async (t) => {
  const layout = temporaryDirectory(t);
  mkdirSync(join(layout, 'blobs'));
  writeFileSync(join(layout, 'index.json'), '{"manifests": []}');
  const { origin, requests } = await serve(t, { layout });
  const agent = new Agent({ keepAlive: true, maxSockets: 8 });
  t.after(() => agent.destroy());
  const path = `/v2/${'x'.repeat(15_000)}`;
  const asks = 1200;
  for (let done = 0; done < asks; done += 40)
    await Promise.all(Array.from({ length: 40 }, () => ask(`${origin}${path}`, { agent })));
  const kept = requests.reduce((sum, record) => sum + 2 * record.path.length, 0);
  t.diagnostic(`${requests.length} of ${asks} requests kept`);
  assert.ok(requests.length > 100 && requests.length < asks, `${requests.length}`);
  assert.ok(kept <= 16 * 2 ** 20, `${kept}`);
  // A long query is not kept with the path before it.
  const { status } = await ask(`${origin}/v2/?${'q'.repeat(15_000)}`, { agent });
  assert.equal(status, 200);
});

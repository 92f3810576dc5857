import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startDockerRegistry } from '../support/docker-registry.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { startNginx } from '../support/nginx.js';
import { skipUnless } from '../support/programs.js';
import { assertProven, onlyEvent, pull } from '../support/pull.js';
import { temporaryDirectory } from '../support/temporary.js';

/** docker-registry that sends whoever wants a blob to nginx, which has its files. */
async function redirectingRegistry(t: TestContext, lines: string) {
  const root = join(temporaryDirectory(t), 'store');
  const nginx = await startNginx(t, root, lines);
  const registry = await startDockerRegistry({
    config: {
      storage: { filesystem: { rootdirectory: root } },
      middleware: { storage: [{ name: 'redirect', options: { baseurl: `http://${nginx.host}/` } }] },
    },
  });
  t.after(() => registry.stop());
  await registry.fill(FIXTURE_LAYOUT, 'chunked-v1', 'team/app:1');
  return { registry, nginx };
}

const SKIP = { skip: skipUnless('docker-registry', 'nginx', 'skopeo') };

test('docker-registry redirects blobs to nginx, which answers ranges', SKIP, async (t) => {
  const { registry, nginx } = await redirectingRegistry(t, '');
  const before = nginx.log().length;
  const pulled = await pull(`${registry.host}/team/app:1`, { store: temporaryDirectory(t) });
  assertProven(pulled.result);
  assert.equal(pulled.result.misses, 0);
  assert.equal(pulled.result.fetchedBytes, onlyEvent(pulled, 'planned').totalBytes);
  const ranges = nginx
    .log()
    .slice(before)
    .filter(({ range }) => range !== '-');
  assert.equal(ranges.length, pulled.result.requests);
  assert.ok(ranges.every(({ status, authorization }) => status === 206 && authorization === '-'));
});

for (const [takes, line, answered] of [
  ['no ranges answers with whole blobs, of which the part is used', 'max_ranges 0;', 200],
  ['one range a request is asked for one', 'max_ranges 1;', 206],
] as const) {
  test(`nginx that takes ${takes}`, SKIP, async (t) => {
    const { registry, nginx } = await redirectingRegistry(t, line);
    const { result } = await pull(`${registry.host}/team/app:1`, { store: temporaryDirectory(t) });
    assertProven(result);
    assert.equal(result.misses, 0);
    const ranges = nginx.log().filter(({ range }) => range !== '-');
    assert.ok(ranges.length > 0 && ranges.every(({ status }) => status === answered));
  });
}

test('nginx that is slow is waited for', SKIP, async (t) => {
  const { registry } = await redirectingRegistry(t, 'limit_rate 150k;');
  const options = { store: temporaryDirectory(t), idleTimeoutMs: 5000 };
  const { result } = await pull(`${registry.host}/team/app:1`, options);
  assertProven(result);
  assert.equal(result.misses, 0);
});

test('the limit of nginx on the rate of requests is obeyed', SKIP, async (t) => {
  const { registry, nginx } = await redirectingRegistry(t, 'limit_req zone=each; limit_req_status 429;');
  const pulled = await pull(`${registry.host}/team/app:1`, { store: temporaryDirectory(t) });
  assertProven(pulled.result);
  assert.equal(pulled.result.misses, 0);
  assert.ok(nginx.log().some(({ status }) => status === 429));
  assert.ok(pulled.events.some(({ event }) => event === 'waiting'));
});

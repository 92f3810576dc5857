import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import type { PullEvent } from '../../src/api/pull.js';
import { WorkerPool } from '../../src/pool/worker-pool.js';
import { storePaths } from '../../src/store/paths.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { emptyLayout, noise, readManifest, tarOf, writeTars } from '../support/layout.js';
import { packFiles } from '../support/packs.js';
import { failureOf, pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

test('a plan below 8 MiB needs one thread and one pack, a larger one all threads', async (t) => {
  const layout = emptyLayout(t);
  await writeTars(t, layout, 'small', [tarOf({ one: noise(1, 400_000), two: noise(2, 300_000) })]);
  await writeTars(t, layout, 'large', [
    tarOf(Object.fromEntries(Array.from({ length: 18 }, (_, i) => [`${i}`, noise(i, 2 ** 19)]))),
  ]);
  const { host } = await startSandbox(t, { layout });
  const start = t.mock.method(WorkerPool, 'start').mock;
  const threadsOf = async (tag: string, store: string) => {
    start.resetCalls();
    await pull(`${host}/x:${tag}`, { store, workers: 3, connections: 6 });
    return start.calls.map(({ arguments: [options] }) => options.threads);
  };
  const small = temporaryDirectory(t);
  assert.deepEqual(await threadsOf('small', small), [1]);
  assert.equal(packFiles(small, '.pack').length, 1);
  assert.deepEqual(await threadsOf('large', temporaryDirectory(t)), [1, 3]);
});

test('the metadata of a layer is stored until the layer is verified, and no longer', async (t) => {
  const { host } = await startSandbox(t);
  const store = temporaryDirectory(t);
  const controller = new AbortController();
  const kept = () =>
    readdirSync(storePaths(store).blobs)
      .filter((name) => !name.includes('.'))
      .sort();
  const onEvent = ({ event }: PullEvent) => {
    if (event === 'planned') controller.abort();
  };
  await failureOf(pull(`${host}/x:chunked-v1`, { store, signal: controller.signal, onEvent }));
  const manifest = readManifest(FIXTURE_LAYOUT, 'chunked-v1');
  const documents = kept().length - 2 * manifest.layers.length;
  assert.equal(documents, 2, 'manifest and config, and TOC and tar-split of each layer');
  const { digest } = (await pull(`${host}/x:chunked-v1`, { store })).result;
  const named = [digest, manifest.config.digest].map((each) => each.slice('sha256:'.length));
  assert.deepEqual(kept(), named.sort());
});

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { copyImage } from '../../src/api/copy.js';
import type { LayerProgress, PullEvent } from '../../src/api/pull.js';
import { parseDigest } from '../../src/format/digest.js';
import { LayerLocks } from '../../src/store/layer-locks.js';
import { Lease } from '../../src/store/leases.js';
import { openStore } from '../../src/store/paths.js';
import { FIXTURE_LAYOUT } from '../support/fixture-layout.js';
import { readConfig, readManifest } from '../support/layout.js';
import { pull } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const EVERY_MS = 100;

/** The last that was said of each layer, in the order of the first event. */
function lastOf(events: readonly PullEvent[]): LayerProgress[] {
  const layers = new Map<string, LayerProgress>();
  for (const event of events) {
    if (event.event === 'layers') for (const layer of event.layers) layers.set(layer.digest, layer);
  }
  return [...layers.values()];
}

function statesOf(events: readonly PullEvent[], digest: string): string[] {
  const states = events.flatMap((event) =>
    event.event === 'layers' ? event.layers.filter((layer) => layer.digest === digest) : [],
  );
  return states.map(({ state }) => state).filter((state, i, all) => state !== all[i - 1]);
}

test('every layer ends with the figures of the result, by way of its states', async (t) => {
  const { host } = await startSandbox(t, { ratePerConnectionBytes: 1_000_000 });
  const store = temporaryDirectory(t);
  for (const tag of ['chunked-v1', 'chunked-v2']) {
    const begunMs = performance.now();
    const { result, events } = await pull(`${host}/x:${tag}`, { store });
    const last = lastOf(events);
    assert.deepEqual(
      last.map(({ digest, diffId, sizeBytes }) => ({ digest, diffId, sizeBytes })),
      result.layers.map(({ digest, diffId, sizeBytes }) => ({ digest, diffId, sizeBytes })),
    );
    for (const [i, layer] of last.entries()) {
      const { digest, fetchedBytes, reusedBytes } = result.layers[i]!;
      const isThere = fetchedBytes === 0;
      assert.equal(layer.state, isThere ? 'reused' : 'done');
      assert.equal(layer.receivedBytes, fetchedBytes);
      if (isThere) continue;
      assert.equal(layer.totalBytes, fetchedBytes);
      assert.equal(layer.reusedBytes, reusedBytes);
      const order = ['waiting', 'fetching', 'verifying', 'done'];
      assert.ok(isSubsequence(statesOf(events, digest), order), String(statesOf(events, digest)));
    }
    const count = events.filter(({ event }) => event === 'layers').length;
    assert.ok(count <= (performance.now() - begunMs) / EVERY_MS + 1, `${count} events`);
  }
});

function isSubsequence(part: readonly string[], whole: readonly string[]): boolean {
  let from = 0;
  return part.every((item) => {
    from = whole.indexOf(item, from) + 1;
    return from > 0;
  });
}

test('a copy tells of its layers by the digests of their blobs', async (t) => {
  const { host } = await startSandbox(t);
  const destination = { kind: 'layout', path: join(temporaryDirectory(t), 'layout') } as const;
  for (const state of ['done', 'reused']) {
    const events: PullEvent[] = [];
    await copyImage(`${host}/x:chunked-v1`, { destination, onEvent: (event) => events.push(event) });
    const last = lastOf(events);
    assert.equal(last.length, 3);
    for (const layer of last) {
      assert.equal(layer.state, state);
      assert.equal(layer.receivedBytes, layer.totalBytes);
    }
  }
});

test('a layer that another process pulls is shared until its lock is free', async (t) => {
  const { host } = await startSandbox(t);
  const store = temporaryDirectory(t);
  const image = `${host}/x:chunked-v1`;
  const manifest = readManifest(FIXTURE_LAYOUT, 'chunked-v1');
  const { digest } = manifest.layers[0]!;
  const diffId = parseDigest(readConfig(FIXTURE_LAYOUT, manifest).rootfs.diff_ids[0]!, 'DiffID');
  const paths = openStore(store, () => {});
  const lease = new Lease(paths, 'pull');
  const locks = new LayerLocks(paths, lease);
  assert.ok(locks.tryLock(diffId));
  const { events } = await pull(image, {
    store,
    onEvent: (event) => {
      if (event.event === 'waiting-for-layers') setTimeout(() => locks.releaseAll(), 3 * EVERY_MS);
    },
  });
  lease.close();
  const states = statesOf(events, digest);
  assert.ok(states.includes('shared'), String(states));
  assert.equal(states.at(-1), 'done');
});

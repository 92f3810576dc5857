import assert from 'node:assert/strict';
import { readdirSync, rmSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { exportLayers } from '../../src/api/export.js';
import type { PullEvent, PullResult } from '../../src/api/pull.js';
import { pruneStore, removeImage, verifyStore } from '../../src/api/store.js';
import { WorkerPool } from '../../src/pool/worker-pool.js';
import { Lease } from '../../src/store/leases.js';
import { layerRecordPath, openStore, storePaths } from '../../src/store/paths.js';
import { outcomesOf, startPullingChild } from '../support/child.js';
import { noise, overlappingImages, tarOf, writeTars } from '../support/layout.js';
import {
  assertAskedOnce,
  assertProven,
  failureOf,
  firstEvent,
  layerAsks,
  listedImages,
  pull,
} from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

const MIB = 2 ** 20;
const PROCESSES = 10;

test('ten processes pull overlapping images into one store, and nothing is fetched twice', async (t) => {
  const registry = await startSandbox(t, { layout: await overlappingImages(t) });
  const store = temporaryDirectory(t);
  const names = Array.from(
    { length: PROCESSES },
    (_, i) => `${registry.host}/x:${i % 2 === 0 ? 'one' : 'two'}`,
  );
  const children = names.map((image) => startPullingChild(t, { image, options: { store } }));
  const results: PullResult[] = [];
  for (const child of children) {
    assert.equal(await child.gone, 0);
    const [outcome] = outcomesOf(child.lines);
    assert.ok(outcome !== undefined && 'digest' in outcome, JSON.stringify(outcome));
    results.push(outcome);
  }
  assertAskedOnce(layerAsks(registry));
  const fetched = results.reduce((sum, { fetchedBytes }) => sum + fetchedBytes, 0);
  const blobs = new Map(
    results.flatMap(({ layers }) => layers.map((layer) => [layer.digest, layer.sizeBytes])),
  );
  const most = [...blobs.values()].reduce((sum, bytes) => sum + bytes, 0);
  assert.ok(fetched > 0 && fetched <= most, `${fetched} of ${most}`);
  assert.equal(listedImages(store).length, 2);
  assertProven(results[1]!);
  for (const directory of [storePaths(store).locks, storePaths(store).leases])
    assert.deepEqual(readdirSync(directory), []);
});

test('a pull pulls the layers that are not locked, waits for the others, and then uses them', async (t) => {
  const layout = await overlappingImages(t);
  const slow = await startSandbox(t, { layout, rateBytes: 3 * MIB });
  const fast = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const started = firstEvent(({ event }) => event === 'planned');
  const first = pull(`${slow.host}/x:one`, { store, onEvent: started.onEvent });
  await started.seen;
  const second = await pull(`${fast.host}/x:two`, { store, patienceMs: 1 });
  const waits = second.events.findIndex(({ event }) => event === 'waiting-for-layers');
  const own = second.events.findIndex(({ event }) => event === 'layer');
  assert.ok(own >= 0 && own < waits, `${own} ${waits}`);
  const [shared, small] = second.result.layers;
  assert.deepEqual([shared!.fetchedBytes, shared!.reusedBytes], [0, shared!.tarBytes]);
  assert.ok(small!.fetchedBytes > 0);
  assert.ok(layerAsks(fast).every(({ path }) => path.endsWith(small!.digest)));
  await first;
  assertProven(second.result);
});

test('layers that another process gives up are pulled here, and the bytes it received are used', async (t) => {
  const layout = await overlappingImages(t);
  const slow = await startSandbox(t, { layout, rateBytes: 3 * MIB });
  const fast = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const controller = new AbortController();
  const far = firstEvent((event) => event.event === 'progress' && event.writtenBytes > MIB);
  const options = { store, connections: 2, signal: controller.signal };
  const first = failureOf(pull(`${slow.host}/x:one`, { ...options, onEvent: far.onEvent }));
  await far.seen;
  const onEvent = ({ event }: PullEvent) => {
    if (event === 'waiting-for-layers') controller.abort();
  };
  const { result } = await pull(`${fast.host}/x:one`, { store, onEvent });
  assert.equal((await first).code, 'interrupted');
  assert.ok(result.resumedBytes > MIB / 2, `${result.resumedBytes}`);
  assertProven(result);
});

test('locks of a killed process expire 15 s after its last heartbeat', async (t) => {
  const layout = await overlappingImages(t);
  const slow = await startSandbox(t, { layout, rateBytes: 3 * MIB });
  const fast = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const options = { store, connections: 2 };
  const child = startPullingChild(t, { image: `${slow.host}/x:one`, options }, (line, process) => {
    if (line.event === 'progress' && line.writtenBytes > MIB) process.kill('SIGKILL');
  });
  assert.equal(await child.gone, 'SIGKILL');
  const { leases, locks } = storePaths(store);
  assert.deepEqual([readdirSync(leases).length, readdirSync(locks).length], [1, 1]);
  const lease = join(leases, readdirSync(leases)[0]!);
  const onEvent = ({ event }: PullEvent) => {
    const then = Date.now() / 1000 - 16;
    if (event === 'waiting-for-layers') utimesSync(lease, then, then);
  };
  const { result, events } = await pull(`${fast.host}/x:one`, { store, onEvent });
  assert.ok(events.some(({ event }) => event === 'waiting-for-layers'));
  assert.ok(result.resumedBytes > MIB / 2, `${result.resumedBytes}`);
  assertProven(result);
});

test('a layer that is in the store is not locked any more, while others are still pulled', async (t) => {
  const registry = await startSandbox(t, { layout: await overlappingImages(t), rateBytes: 10 * MIB });
  const store = temporaryDirectory(t);
  const { locks } = storePaths(store);
  const left: number[] = [];
  const onEvent = ({ event }: PullEvent) => {
    if (event === 'planned' || event === 'layer') left.push(readdirSync(locks).length);
  };
  await pull(`${registry.host}/x:two`, { store, onEvent });
  assert.deepEqual(left, [2, 1, 0]);
});

test('a prune does not run during a pull, and an image removed meanwhile does not harm the pull', async (t) => {
  const layout = await overlappingImages(t);
  const registry = await startSandbox(t, { layout, rateBytes: 4 * MIB });
  const store = temporaryDirectory(t);
  await writeTars(t, layout, 'old', [tarOf({ f3: noise(4, MIB / 4) })]);
  const old = `${registry.host}/x:old`;
  await pull(old, { store });
  const meanwhile: Promise<unknown>[] = [];
  const onEvent = ({ event }: PullEvent) => {
    if (event !== 'planned') return;
    meanwhile.push(removeImage({ store, image: old }).then(() => pruneStore({ store })));
  };
  const { result } = await pull(`${registry.host}/x:one`, { store, onEvent });
  const [pruned] = (await Promise.all(meanwhile)) as { removedLayers: number; stoppedBy: string | null }[];
  assert.deepEqual([pruned!.stoppedBy, pruned!.removedLayers], ['pull', 0]);
  assert.equal(result.reusedBytes, MIB / 4);
  assert.deepEqual((await verifyStore({ store })).damaged, []);
});

test('a layer that a prune deleted while others were pulled is pulled again', async (t) => {
  const registry = await startSandbox(t, { layout: await overlappingImages(t) });
  const store = temporaryDirectory(t);
  const { result: first } = await pull(`${registry.host}/x:one`, { store });
  const { layers, packs } = storePaths(store);
  let taken = false;
  const onEvent = ({ event }: PullEvent) => {
    if (event !== 'planned' || taken) return;
    taken = true;
    rmSync(layerRecordPath(storePaths(store), first.layers[0]!.diffId as never));
    for (const name of readdirSync(packs)) if (!name.endsWith('.open')) rmSync(join(packs, name));
  };
  const { result } = await pull(`${registry.host}/x:two`, { store, onEvent });
  assert.ok(taken && result.layers[0]!.fetchedBytes > 0);
  assert.equal(readdirSync(layers).length, 2);
  assertProven(result);
});

test('an export, a verify and a pull hold a lease while they read', async (t) => {
  const registry = await startSandbox(t);
  const store = temporaryDirectory(t);
  const image = `${registry.host}/x:chunked-v1`;
  const watch = new Lease(openStore(store), 'prune');
  t.after(() => watch.close());
  const seen: string[] = [];
  const run = WorkerPool.prototype.run;
  t.mock.method(WorkerPool.prototype, 'run', function (this: WorkerPool, ...args: Parameters<typeof run>) {
    seen.push(...watch.otherKinds());
    return Reflect.apply(run, this, args);
  });
  const usesOf = async (work: () => Promise<unknown>) => {
    seen.length = 0;
    await work();
    assert.deepEqual(watch.otherKinds(), [], 'it is given back');
    return [...new Set(seen)];
  };
  assert.deepEqual(await usesOf(() => pull(image, { store })), ['pull']);
  assert.deepEqual(await usesOf(() => verifyStore({ store })), ['verify']);
  const { result } = await pull(image, { store, policy: 'never' });
  const diffIds = result.layers.map(({ diffId }) => diffId);
  const directory = temporaryDirectory(t);
  assert.deepEqual(await usesOf(() => exportLayers({ store, diffIds, directory })), ['export']);
});

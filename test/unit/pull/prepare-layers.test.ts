import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { type ErrorCode, type Failure, PullError } from '../../../src/format/error.js';
import type { LayerTable } from '../../../src/format/layer-table.js';
import type { ReadMetadataResult } from '../../../src/pool/messages.js';
import { readLayers } from '../../../src/pull/prepare-layers.js';
import { fakeContext, fakeLayer, fakePool } from '../../support/fake-context.js';

const MIB = 2 ** 20;

/** What reading a layer of so many contents and chunks gives; the rows themselves are not looked at. */
function metadataOf(contents: number, chunks = 0): ReadMetadataResult {
  const { metadata } = fakeLayer();
  const chunkTarStart = { length: chunks } as Float64Array;
  const table: LayerTable = { ...metadata.table, count: contents, chunkTarStart };
  return { metadata: { ...metadata, table }, fetchedBytes: 10, requests: 1 };
}

/** Reads one layer for each of these answers. */
function read(answers: readonly ReadMetadataResult[]) {
  const left = [...answers];
  const { context } = fakeContext({ support: fakePool(async () => left.shift()!) });
  const wanted = answers.map((_, i) => {
    const { metadata: _metadata, ...layer } = fakeLayer(200, i);
    return layer;
  });
  return readLayers(context, wanted);
}

test('the layers come in order, with what their metadata cost', async () => {
  const layers = await read([metadataOf(3), metadataOf(1), metadataOf(2)]);
  assert.deepEqual(
    layers.map(({ metadata, cost }) => [metadata?.table.count, cost.fetchedBytes]),
    [
      [3, 10],
      [1, 10],
      [2, 10],
    ],
  );
});

test('contents and chunks of all layers together are limited, and layers beyond the limit are opaque', async () => {
  const half = 2 ** 19;
  const all = await read([metadataOf(half), metadataOf(half - 5), metadataOf(2, 3)]);
  assert.ok(all.every(({ metadata }) => metadata !== undefined));
  const some = await read([metadataOf(half), metadataOf(half - 5), metadataOf(3, 3), metadataOf(2, 3)]);
  assert.deepEqual(
    some.map(({ metadata }) => metadata?.table.count),
    [half, half - 5, undefined, 2],
  );
  const { cost, failedBefore } = some[2]!;
  assert.deepEqual([cost, failedBefore?.code], [{ fetchedBytes: 10, requests: 1 }, 'unsupported']);
  assert.match(failedBefore?.message ?? '', /1048576 files/);
});

/** The most tasks at a time and the layers read, when the metadata of each decodes to so many bytes. */
async function mostAtATime(
  uncompressedBytes: readonly number[],
  { connections = 16, throttled = false } = {},
): Promise<{ most: number; read: number; streams: number }> {
  let running = 0;
  let most = 0;
  const support = fakePool(async (task) => {
    assert.ok(task.task === 'read-metadata' && task.location.by === 'annotations');
    const answer = once(task.port, 'message');
    task.port.postMessage(task.location.toc.uncompressedBytes + task.location.tarSplit!.uncompressedBytes);
    const [refusal] = (await answer) as [Failure | null];
    if (refusal !== null) return { failure: refusal, fetchedBytes: 0, requests: 0 };
    running += 1;
    most = Math.max(most, running);
    await new Promise(setImmediate);
    running -= 1;
    return metadataOf(1);
  });
  const { context } = fakeContext({ support, connections });
  if (throttled) context.concurrency.throttled(1000, 1);
  const layers = await readLayers(
    context,
    uncompressedBytes.map((bytes, i) => {
      const { metadata: _, ...layer } = fakeLayer(bytes, i);
      return layer;
    }),
  );
  const streams = layers.filter(({ metadata }) => metadata === undefined).length;
  return { most, read: layers.length, streams };
}

test('as many layers are read at a time as their decoded metadata may take, one in any case', async () => {
  const tenOf = (bytes: number) => new Array<number>(10).fill(bytes);
  assert.deepEqual(await mostAtATime(tenOf(MIB)), { most: 10, read: 10, streams: 0 });
  assert.deepEqual(await mostAtATime(tenOf(12 * MIB)), { most: 4, read: 10, streams: 0 });
  assert.deepEqual(await mostAtATime([100 * MIB, 100 * MIB]), { most: 1, read: 2, streams: 0 });
});

test('a pull reads a limited amount of metadata, and a layer beyond it is opaque; a smaller one may still follow', async () => {
  const bytes = [200, 200, 200, 200, 160, 20, 8].map((mib) => mib * MIB);
  assert.deepEqual(await mostAtATime(bytes), { most: 1, read: 7, streams: 2 });
});

test('the metadata of one blob is read once, whatever the DiffIDs of its layers', async () => {
  let tasks = 0;
  const support = fakePool(async () => {
    tasks += 1;
    return metadataOf(2);
  });
  const { context } = fakeContext({ support });
  const { metadata: _, ...layer } = fakeLayer();
  const [first, second] = await readLayers(context, [layer, layer]);
  assert.equal(tasks, 1);
  assert.equal(second!.metadata, first!.metadata);
  assert.deepEqual([first!.cost.requests, second!.cost.requests], [1, 0]);
});

test('no more layers are read at a time than there are connections, nor than the registry allows', async () => {
  const layers = new Array(10).fill(MIB);
  assert.deepEqual(await mostAtATime(layers, { connections: 6 }), { most: 6, read: 10, streams: 0 });
  // It begins with three, and each good answer counts.
  const throttled = await mostAtATime(layers, { connections: 6, throttled: true });
  assert.deepEqual(throttled, { most: 4, read: 10, streams: 0 });
});

test('malformed metadata causes a warning, and the layer is opaque; a lost network ends the pull', async () => {
  const answer = (code: ErrorCode) =>
    fakeContext({ support: fakePool(() => Promise.reject(new PullError(code, 'no good'))) });
  const { context, events } = answer('metadata-malformed');
  const { metadata: _, ...wanted } = fakeLayer();
  const [layer] = await readLayers(context, [wanted]);
  assert.equal(layer?.metadata, undefined);
  assert.deepEqual(
    events.map(({ event }) => event),
    ['warning'],
  );
  await assert.rejects(readLayers(answer('network-hopeless').context, [fakeLayer()]), {
    code: 'network-hopeless',
  });
});

test('an unreadable blob of several layers ends only the reading, while others wait', async () => {
  const lost = new PullError('network-hopeless', 'no way there');
  const { context } = fakeContext({ support: fakePool(() => Promise.reject(lost)), connections: 1 });
  const { metadata: _, ...layer } = fakeLayer();
  const { metadata: __, ...other } = fakeLayer(200, 1);
  // A rejection that is handled nowhere would end the process, and here the test.
  await assert.rejects(readLayers(context, [layer, layer, other]), { code: 'network-hopeless' });
  await new Promise(setImmediate);
});

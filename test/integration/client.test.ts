import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import type { Worker } from 'node:worker_threads';
import { exportTar } from '../../src/api/export.js';
import { Client, type ClientOptions, type PullError, type PullResult, serve } from '../../src/index.js';
import { FIXTURE_LAYOUT, fixtureBlob, MANIFEST_DIGEST } from '../support/fixture-layout.js';
import { findInPacks, flipByte } from '../support/packs.js';
import { assertProven, failureOf } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

function makeClient(t: TestContext, options: Partial<ClientOptions> = {}): Client {
  const client = new Client({ store: join(temporaryDirectory(t), 'store'), workers: 2, ...options });
  t.after(() => client.close());
  return client;
}

/** Passes connections on, and counts how many are open at a time. */
async function startCounter(t: TestContext, port: number) {
  const counts = { now: 0, most: 0 };
  const server = createServer((client) => {
    counts.now += 1;
    counts.most = Math.max(counts.most, counts.now);
    client.once('close', () => {
      counts.now -= 1;
    });
    const target = connect(port, '127.0.0.1');
    pipeline(client, target, client, () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return { counts, host: `127.0.0.1:${(server.address() as AddressInfo).port}` };
}

/** The most worker threads that are alive at a time during `work`. */
async function mostThreads(work: () => Promise<unknown>): Promise<number> {
  let [now, most] = [0, 0];
  const started = (worker: Worker) => {
    now += 1;
    most = Math.max(most, now);
    worker.once('exit', () => {
      now -= 1;
    });
  };
  process.on('worker', started);
  try {
    await work();
  } finally {
    process.off('worker', started);
  }
  return most;
}

test('several pulls at once share a token, and take no more threads and connections than one', async (t) => {
  const registry = await startSandbox(t, { requireToken: {}, latencyMs: 5 });
  const measure = async (images: readonly string[]) => {
    const { counts, host } = await startCounter(t, Number(registry.host.split(':')[1]));
    const client = makeClient(t, { connections: 3 });
    const results: PullResult[] = [];
    const threads = await mostThreads(async () => {
      results.push(...(await Promise.all(images.map((tag) => client.pull(`${host}/x:${tag}`)))));
    });
    for (const result of results) assertProven(result);
    return { threads, connections: counts.most, results };
  };
  const one = await measure(['chunked-v1']);
  const tokens = () => registry.requests.filter(({ path }) => path.startsWith('/token')).length;
  const before = tokens();
  const several = await measure(['chunked-v1', 'chunked-v2', 'chunked-v1', 'chunked-v2']);
  assert.equal(tokens() - before, 1);
  assert.ok(several.threads <= one.threads, `${several.threads} threads, one pull takes ${one.threads}`);
  // Each of the others has one for its manifest at most.
  assert.ok(several.connections <= one.connections + 3, `${several.connections}, alone ${one.connections}`);
  // Of two pulls of an image, whichever comes second waits for the other, and finds it.
  const [first, second, again, secondAgain] = several.results.map(({ fetchedBytes }) => fetchedBytes);
  assert.deepEqual([Math.min(first!, again!), Math.min(second!, secondAgain!)], [0, 0]);
});

test('the events of a pull can be read in a loop, with image and time, and the result comes last', async (t) => {
  const { host } = await startSandbox(t);
  const client = makeClient(t);
  const image = `${host}/x:chunked-v1`;
  const names: string[] = [];
  let result: PullResult | undefined;
  for await (const event of client.pullEvents(image)) {
    names.push(event.event);
    assert.equal(event.image, image);
    assert.ok(Math.abs(Date.now() - event.timeMs) < 60_000);
    if (event.event === 'result') result = event.result;
  }
  assert.deepEqual([names[0], names.at(-1)], ['resolving', 'result']);
  assert.ok(names.includes('planned') && names.includes('progress') && names.includes('layer'));
  assertProven(result!);
});

test('a loop that is left ends its pull, and one that fails throws', async (t) => {
  const { host } = await startSandbox(t, { latencyMs: 50 });
  const client = makeClient(t);
  for await (const { event } of client.pullEvents(`${host}/x:chunked-v1`)) if (event === 'resolved') break;
  assert.deepEqual((await client.store.list()).images, []);
  const missing = async () => {
    for await (const _ of client.pullEvents(`${host}/x:none`));
  };
  assert.equal((await failureOf(missing())).code, 'image-not-found');
});

test('fifty pulls on one signal cause no warning, and end with its reason as the cause', async (t) => {
  const { host } = await startSandbox(t, { latencyMs: 200 });
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on('warning', onWarning);
  t.after(() => process.off('warning', onWarning));
  const client = makeClient(t);
  const controller = new AbortController();
  const pulls = Array.from({ length: 50 }, () =>
    failureOf(client.pull(`${host}/x:chunked-v1`, { signal: controller.signal })),
  );
  await new Promise((resolve) => setTimeout(resolve, 100));
  const reason = new Error('enough');
  controller.abort(reason);
  for (const { code, cause } of await Promise.all(pulls)) {
    assert.deepEqual([code, cause], ['interrupted', reason]);
  }
  assert.deepEqual(
    warnings.filter(({ name }) => name === 'MaxListenersExceededWarning'),
    [],
  );
});

test('a client that is closed ends its calls and refuses others', async (t) => {
  const { host } = await startSandbox(t, { latencyMs: 200 });
  const client = makeClient(t);
  const pulling = failureOf(client.pull(`${host}/x:chunked-v1`));
  const stream = client.tar(`${host}/x:chunked-v1`);
  const failing = once(stream, 'error');
  stream.read();
  await client.close();
  assert.deepEqual([(await pulling).code, (await pulling).message], ['interrupted', 'the client is closed']);
  await failing;
  assert.equal((await failureOf(client.store.list())).message, 'the client is closed');
  await client[Symbol.asyncDispose]();
});

test('wrong options are refused by their name', async (t) => {
  for (const options of [
    {},
    { store: '' },
    { store: 7 },
    { store: 's', policy: 'sometimes' },
    { store: 's', workers: 'x' },
    undefined,
  ]) {
    assert.throws(() => new Client(options as unknown as ClientOptions), { code: 'option-malformed' });
  }
  const client = makeClient(t);
  const wrong: readonly (() => Promise<unknown>)[] = [
    () => client.pull('alpine', { policy: 'sometimes' as 'always' }),
    () => client.pull('alpine', { signal: {} as AbortSignal }),
    () => client.exportImage({ image: 'alpine', to: 'rootfs:x' as never }),
    () => client.exportImage({ image: 'alpine', to: { kind: 'zip' as 'tar', path: 'x' } }),
    () => client.exportImage({ image: 'alpine', to: { kind: 'layers', path: 'x' }, path: 'a' }),
    () => client.copy({ image: 'alpine' } as never),
    () => client.readFile('alpine', ''),
    () => client.readFile('alpine', 'a', { maxBytes: -1 }),
    () => serve(''),
  ];
  for (const call of wrong) {
    const error = await failureOf(Promise.resolve().then(call));
    assert.equal(error.code, 'option-malformed', String(call));
  }
  assert.equal((await failureOf(client.pull(7 as unknown as string))).code, 'reference-malformed');
});

test('a reference is resolved by a HEAD once the image was pulled, and a manifest comes byte for byte', async (t) => {
  const registry = await startSandbox(t);
  const client = makeClient(t);
  const image = `${registry.host}/x:chunked-v1`;
  const before = await client.resolve(image);
  assert.deepEqual([before.image, before.digest], [image, MANIFEST_DIGEST]);
  await client.pull(image);
  const count = registry.requests.length;
  assert.deepEqual(await client.resolve(image), before);
  const asked = registry.requests.slice(count).map(({ method, path }) => `${method} ${path}`);
  assert.deepEqual(
    asked.filter((line) => !line.endsWith(' /v2/')),
    ['HEAD /v2/x/manifests/chunked-v1'],
  );
  const manifest = await client.manifest(image);
  assert.deepEqual([manifest.digest, manifest.bytes], [MANIFEST_DIGEST, fixtureBlob(MANIFEST_DIGEST)]);
  const { tags } = await client.tags(`${registry.host}/x`);
  assert.deepEqual([...tags].sort(), ['chunked-v1', 'chunked-v2']);
  const { config, platforms, ...inspection } = await client.inspect(image);
  assert.deepEqual([inspection.digest, typeof config, platforms], [MANIFEST_DIGEST, 'object', undefined]);
  const plan = await client.plan(image);
  assert.deepEqual([plan.fetchBytes, plan.digest, 'config' in plan], [0, MANIFEST_DIGEST, false]);
});

test('files, tars and layers of an image can be listed and read', async (t) => {
  const { host } = await startSandbox(t);
  const client = makeClient(t);
  const image = `${host}/x:chunked-v1`;
  const entries = await client.list(image);
  const file = entries.find(({ type, sizeBytes }) => type === 'file' && sizeBytes > 0)!;
  const { layers, fetchedBytes } = await client.pull(image);
  assert.equal(fetchedBytes, 0);
  const content = await client.readFile(image, file.path);
  assert.equal(content.length, file.sizeBytes);
  // The same bytes as those of an export.
  const root = join(temporaryDirectory(t), 'root');
  const exported = await client.exportImage({ image, to: { kind: 'rootfs', path: root }, sameOwner: false });
  assert.equal(exported.digest, MANIFEST_DIGEST);
  assert.deepEqual(readFileSync(join(root, file.path)), content);
  const tarFile = join(temporaryDirectory(t), 'image.tar');
  const diffIds = layers.map(({ diffId }) => diffId);
  await exportTar({ store: client.store.path, diffIds, file: tarFile });
  assert.deepEqual(await buffer(client.tar(image)), readFileSync(tarFile));
  for (const diffId of diffIds) {
    const digest = createHash('sha256')
      .update(await buffer(client.openLayer(diffId)))
      .digest('hex');
    assert.equal(`sha256:${digest}`, diffId);
  }
  const only = await client.list(image, { path: file.path });
  assert.ok(only.some(({ path }) => file.path.endsWith(path)));
  assert.equal((await failureOf(client.readFile(image, 'no/such/file'))).code, 'path-not-found');
  const directory = entries.find(({ type, path }) => type === 'directory' && path !== '.')!;
  assert.equal((await failureOf(client.readFile(image, directory.path))).code, 'path-not-found');
  const tooLong = client.readFile(image, file.path, { maxBytes: file.sizeBytes - 1 });
  assert.equal((await failureOf(tooLong)).code, 'unsupported');
});

test('of an image that is not in the store, one file is fetched alone', async (t) => {
  const { host } = await startSandbox(t);
  const image = `${host}/x:chunked-v1`;
  const whole = await makeClient(t).list(image);
  const file = whole.find(({ type, sizeBytes }) => type === 'file' && sizeBytes > 0)!;
  const client = makeClient(t);
  assert.equal((await client.readFile(image, file.path)).length, file.sizeBytes);
  assert.deepEqual((await client.store.list()).images, []);
});

test('a stream of damaged bytes fails before its last chunk', async (t) => {
  const { host } = await startSandbox(t);
  const client = makeClient(t);
  const image = `${host}/x:chunked-v1`;
  const { layers } = await client.pull(image);
  const largest = (await client.list(image)).toSorted((a, b) => b.sizeBytes - a.sizeBytes)[0]!;
  const content = await client.readFile(image, largest.path);
  const damage = () => {
    const { path, at } = findInPacks(client.store.path, content);
    flipByte(path, at);
  };
  const read = async (stream: AsyncIterable<Buffer>) => {
    let bytes = 0;
    try {
      for await (const chunk of stream) bytes += chunk.length;
    } catch (error) {
      return { bytes, code: (error as PullError).code };
    }
    return { bytes, code: undefined };
  };
  damage();
  assert.equal((await read(client.tar(image))).code, 'digest-mismatch');
  // The next pull fetches what is damaged.
  assert.ok((await client.pull(image)).fetchedBytes > 0);
  damage();
  const damaged: { bytes: number; tarBytes: number }[] = [];
  for (const { diffId, tarBytes } of layers) {
    const { bytes, code } = await read(client.openLayer(diffId));
    if (code !== 'digest-mismatch') continue;
    damaged.push({ bytes, tarBytes });
    assert.equal((await read(client.openLayer(diffId))).code, 'store-broken');
  }
  assert.equal(damaged.length, 1);
  assert.ok(damaged[0]!.bytes < damaged[0]!.tarBytes);
});

test('a stream that is destroyed early ends its threads, and an abort destroys it', async (t) => {
  const { host } = await startSandbox(t);
  const client = makeClient(t);
  const image = `${host}/x:chunked-v1`;
  await client.pull(image);
  for (let i = 0; i < 6; i++) {
    const stream = client.tar(image);
    await once(stream, 'readable');
    stream.destroy();
    await once(stream, 'close');
  }
  const controller = new AbortController();
  const stream = client.tar(image, { signal: controller.signal });
  await once(stream, 'readable');
  controller.abort(new Error('enough'));
  const [error] = (await once(stream, 'error').catch((thrown: unknown) => [thrown])) as [PullError];
  assert.deepEqual([error.code, (error.cause as Error).message], ['interrupted', 'enough']);
});

test('a client copies images, serves layouts and looks after its store', async (t) => {
  await using served = await serve(FIXTURE_LAYOUT);
  const client = makeClient(t);
  const image = `${served.host}/any/name:chunked-v1`;
  const layout = join(temporaryDirectory(t), 'layout');
  const { digest } = await client.copy({ image, to: { kind: 'layout', path: layout, tag: 'copied' } });
  assert.equal(digest, MANIFEST_DIGEST);
  assert.ok(existsSync(join(layout, 'index.json')));
  const pulled = await client.pull(`oci:${layout}:copied`);
  assert.deepEqual(
    (await client.store.list()).images.map(({ image: name }) => name),
    [pulled.image],
  );
  assert.deepEqual((await client.store.verify()).damaged, []);
  await client.store.remove(pulled.image);
  assert.ok((await client.store.prune()).freedBytes > 0);
  assert.deepEqual((await client.store.list()).images, []);
});

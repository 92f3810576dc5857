import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { copyImage } from '../../src/api/copy.js';
import { exportDockerArchive, exportLayers, exportRootfs, exportTar } from '../../src/api/export.js';
import { inspectImage, type PullOptions, pullImage } from '../../src/api/pull.js';
import { StageRecorder, type Stages } from '../../src/api/stages.js';
import { type SampleFormat, writeSampleImage } from '../support/layers/sample-image.js';
import { noise, readBlob, readManifest } from '../support/layout.js';
import { startSandbox } from '../support/sandbox.js';
import { tarOf } from '../support/tars.js';
import { type Lifetime, temporaryDirectory } from '../support/temporary.js';

const NAMES = ['resolve', 'metadata', 'fetch', 'decode', 'hash', 'write', 'sync', 'prove'] as const;

const LARGE = noise(1, 3 * 2 ** 20);
const SMALL = noise(2, 1000);
const CONTENT_BYTES = LARGE.length + SMALL.length;
const TAR = tarOf({ name: 'large', content: LARGE }, { name: 'small', content: SMALL });

/** A registry with one image of one layer in each of these formats, named after them. */
async function sandboxWith(t: Lifetime, ...formats: readonly SampleFormat[]) {
  const directory = temporaryDirectory(t);
  const layout = join(directory, 'layout');
  const path = join(directory, 'layer.tar');
  writeFileSync(path, TAR);
  for (const format of formats)
    await writeSampleImage({
      layoutDir: layout,
      ref: refOf(format),
      sources: [{ kind: 'tar', path }],
      format,
    });
  const registry = await startSandbox(t, { layout });
  const image = (format: SampleFormat) => `${registry.host}/x:${refOf(format)}`;
  const blobBytes = (format: SampleFormat) => readManifest(layout, refOf(format)).layers[0]!.size;
  /** Bytes of the manifest and the config. */
  const documentBytes = (format: SampleFormat) => {
    const { manifests } = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
      manifests: { digest: string; annotations: Record<string, string> }[];
    };
    const { digest } = manifests.find(({ annotations }) =>
      Object.values(annotations).includes(refOf(format)),
    )!;
    return readBlob(layout, digest).length + readManifest(layout, refOf(format)).config.size;
  };
  return { layout, image, blobBytes, documentBytes };
}

const refOf = (format: SampleFormat) => format.replace(':', '-');

/** Runs a call, and checks what holds for the stages of every call. */
async function measured<T extends { readonly stages: Stages }>(run: () => Promise<T>): Promise<T> {
  const startedMs = performance.now();
  const result = await run();
  const wallMs = performance.now() - startedMs;
  const { stages } = result;
  const shown = JSON.stringify(stages);
  // The main thread, and for each worker one of libuv's pool beside it.
  const timeMs = wallMs * (1 + 2 * stages.threads);
  let workMs = 0;
  for (const name of NAMES) {
    const stage = stages[name];
    for (const value of Object.values(stage)) assert.ok(value >= 0, `${name}: ${shown}`);
    assert.ok(stage.wallMs <= wallMs, `${name}: ${shown}, ${wallMs}`);
    assert.ok(stage.waitMs <= timeMs, `${name}: ${shown}, ${wallMs}`);
    if (stage.bytes > 0 && name !== 'prove') assert.ok(stage.workMs > 0, `${name}: ${shown}`);
    workMs += stage.workMs;
  }
  assert.ok(workMs <= timeMs, `${shown}, ${wallMs}`);
  const peakBytes = process.platform === 'linux' ? peakOfProcess() : Number.POSITIVE_INFINITY;
  assert.ok(stages.peakMemoryBytes > 2 ** 20 && stages.peakMemoryBytes < 1.1 * peakBytes, shown);
  return result;
}

/**
 * `maxRSS` may be larger: it begins with that of the test runner, which started this process. The
 * kernel counts pages in batches a core, so that it may also become smaller by some.
 */
function peakOfProcess(): number {
  return 1024 * Number(/^VmHWM:\s+([0-9]+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
}

const bytesOf = (stages: Stages) =>
  Object.fromEntries(NAMES.map((name) => [name, stages[name].bytes])) as Record<
    (typeof NAMES)[number],
    number
  >;

test('the bytes of each stage are those of the image, in every format', async (t) => {
  const formats = ['zstd:chunked', 'zstd:chunked-old', 'estargz', 'gzip', 'zstd', 'tar'] as const;
  const sandbox = await sandboxWith(t, ...formats);
  for (const format of formats) {
    const blob = sandbox.blobBytes(format);
    const isChunked = format.includes('chunked') || format === 'estargz';
    const { stages, ...result } = await measured(() =>
      pullImage(sandbox.image(format), { store: temporaryDirectory(t), workers: 2 }),
    );
    // eStargz adds its table of contents to the tar.
    const { tarBytes } = result.layers[0]!;
    const { metadata, fetch, decode, hash, write, ...others } = bytesOf(stages);
    assert.deepEqual(others, { resolve: sandbox.documentBytes(format), sync: 0, prove: tarBytes }, format);
    assert.equal(metadata + fetch, result.fetchedBytes, format);
    assert.equal(metadata > 0, isChunked, format);
    const whole = { decode: TAR.length, hash: TAR.length + CONTENT_BYTES + blob, write: TAR.length + blob };
    const expected = {
      // The digests of contents are those of the metadata.
      'zstd:chunked': { decode: TAR.length, hash: TAR.length, write: TAR.length },
      // Chunks, the content that they make up, and the tar.
      'zstd:chunked-old': { decode: TAR.length, hash: TAR.length + CONTENT_BYTES, write: TAR.length },
      // A landmark of one byte takes the place of the end of the archive, which is behind the table.
      estargz: { decode: TAR.length, hash: tarBytes + CONTENT_BYTES + 1, write: tarBytes },
      gzip: whole,
      zstd: whole,
      tar: { ...whole, decode: 0 },
    };
    assert.deepEqual({ decode, hash, write }, expected[format], format);
    assert.ok(stages.sync.waitMs > 0 && stages.prove.waitMs > 0, format);
    assert.deepEqual(
      [stages.workers, stages.connections, stages.limitRate, stages.patienceSeconds],
      [2, 16, null, 1],
    );
    assert.ok(stages.cpuSeconds > 0 && stages.mainThreadBusy > 0 && stages.mainThreadBusy <= 1, format);
  }
});

test('a pull from a slow registry waits for bytes most of the time', async (t) => {
  const { layout } = await sandboxWith(t, 'zstd:chunked');
  const { host } = await startSandbox(t, { layout, rateBytes: 5e6 });
  const limitRate = 1e9;
  const options: PullOptions = { store: temporaryDirectory(t), workers: 1, limitRate };
  const { stages } = await measured(() => pullImage(`${host}/x:${refOf('zstd:chunked')}`, options));
  assert.deepEqual([stages.limitRate, stages.threads], [limitRate, 1]);
  assert.ok(stages.fetch.waitMs > stages.fetch.wallMs / 2, JSON.stringify(stages.fetch));
});

test('a plan only resolves and reads metadata, and an unchanged pull only resolves', async (t) => {
  const { image, documentBytes } = await sandboxWith(t, 'zstd:chunked');
  const store = temporaryDirectory(t);
  const planned = await measured(() => inspectImage(image('zstd:chunked'), { store }));
  const none = { bytes: 0, wallMs: 0, workMs: 0, waitMs: 0 };
  const idle = (stages: Stages) => NAMES.filter((name) => stages[name].wallMs === 0);
  assert.deepEqual(idle(planned.stages), ['fetch', 'decode', 'hash', 'write', 'sync', 'prove']);
  assert.deepEqual(planned.stages.decode, none);
  assert.equal(planned.stages.resolve.bytes, documentBytes('zstd:chunked'));

  await pullImage(image('zstd:chunked'), { store });
  const again = await measured(() => pullImage(image('zstd:chunked'), { store }));
  assert.deepEqual(idle(again.stages), NAMES.slice(1));
  assert.deepEqual([again.stages.resolve.bytes, again.stages.threads], [0, 0]);
  for (const name of NAMES.slice(1)) assert.deepEqual(again.stages[name], none);
});

test('a copy fetches, hashes and writes the blobs', async (t) => {
  const { image, layout, blobBytes } = await sandboxWith(t, 'zstd:chunked');
  const blob = blobBytes('zstd:chunked') + readManifest(layout, refOf('zstd:chunked')).config.size;
  for (const kind of ['layout', 'archive'] as const) {
    const path = join(temporaryDirectory(t), 'copy');
    const { stages } = await measured(() =>
      copyImage(image('zstd:chunked'), { destination: { kind, path } }),
    );
    const { resolve: _, ...bytes } = bytesOf(stages);
    assert.deepEqual(
      bytes,
      { metadata: 0, fetch: blob, decode: 0, hash: blob, write: blob, sync: 0, prove: blob },
      kind,
    );
  }
});

test('an export reads headers, hashes the layers and writes', async (t) => {
  const { image } = await sandboxWith(t, 'zstd:chunked');
  const store = temporaryDirectory(t);
  const { digest, layers } = await pullImage(image('zstd:chunked'), { store });
  const diffIds = layers.map(({ diffId }) => diffId);
  const to = (name: string) => join(temporaryDirectory(t), name);
  const recorded = async (run: (stages: StageRecorder) => Promise<unknown>) => {
    const recorder = new StageRecorder();
    const result = await measured(async () => {
      await run(recorder);
      return { stages: recorder.result() };
    });
    const { hash, write, prove, ...others } = bytesOf(result.stages);
    assert.deepEqual(others, { resolve: 0, metadata: 0, fetch: 0, decode: 0, sync: 0 });
    assert.deepEqual([hash, prove], [TAR.length, TAR.length]);
    return { write, metadataMs: result.stages.metadata.workMs };
  };

  const file = to('x.tar');
  const tar = await recorded((stages) => exportTar({ store, diffIds, file, stages }));
  assert.equal(tar.write, statSync(file).size);
  assert.ok(tar.metadataMs > 0);
  const directory = to('rootfs');
  const rootfs = await recorded((stages) => exportRootfs({ store, diffIds, directory, stages }));
  assert.equal(rootfs.write, CONTENT_BYTES);
  const tars = to('layers');
  const each = await recorded((stages) => exportLayers({ store, diffIds, directory: tars, stages }));
  assert.deepEqual(each, { write: TAR.length, metadataMs: 0 });
  assert.equal(readdirSync(tars).length, 1);
  const archive = { store, digest, reference: image('zstd:chunked'), file: to('docker.tar') };
  const docker = await recorded((stages) => exportDockerArchive({ ...archive, stages }));
  // Padding is left as holes.
  const paddingBytes = statSync(archive.file).size - docker.write;
  assert.ok(paddingBytes > 0 && paddingBytes < 5 * 512, `${paddingBytes}`);
});

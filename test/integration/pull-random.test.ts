import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { PullEvent } from '../../src/api/pull.js';
import { CHUNKED_FOOTER_BYTES, footerGuessBytes } from '../../src/format/metadata-position.js';
import { TAR_END } from '../../src/format/tar-writer.js';
import { startPullingChild } from '../support/child.js';
import {
  SAMPLE_FORMATS,
  type SampleFormat,
  type SampleResult,
  writeSampleImage,
} from '../support/layers/sample-image.js';
import { emptyLayout, nameImage, noise, readManifest, tarOf } from '../support/layout.js';
import { packFiles } from '../support/packs.js';
import { assertProven, failureOf, layerAsks, listedImages, pull, warnings } from '../support/pull.js';
import { type Random, seededRandom } from '../support/random.js';
import { randomEntries, randomTar } from '../support/random-tar.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

/** Formats that write the tar given; those of stargz-snapshotter add entries of their own. */
const KEEPING: readonly SampleFormat[] = SAMPLE_FORMATS.filter((format) => !/stargz/.test(format));

/** Formats where the headers between two contents can be had without the contents. */
const APART: readonly SampleFormat[] = ['zstd:chunked', 'zstd:chunked-annotated', 'zstd:chunked-old'];

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 1e6));

/** Writes an image of these tars, one layer each, with random options of the format. */
function write(
  t: TestContext,
  random: Random,
  image: { layout: string; ref: string; format: SampleFormat; tars: readonly Buffer[] },
): Promise<SampleResult> {
  const { layout, ref, format, tars } = image;
  const directory = temporaryDirectory(t);
  const sources = tars.map((tar, i) => {
    const path = join(directory, `${i}.tar`);
    writeFileSync(path, tar);
    return { kind: 'tar' as const, path };
  });
  return writeSampleImage({
    layoutDir: layout,
    ref,
    sources,
    format,
    ...(random.chance(0.5) ? { chunkBytes: random.int(500, 200_000) } : {}),
    ...(random.chance(0.5) ? { minChunkBytes: random.int(0, 300_000) } : {}),
    ...(random.chance(0.7) ? { frameBytes: random.int(1000, 500_000) } : {}),
  });
}

/** A file of these bytes, without the end of an archive. */
function entry(name: string, bytes: Buffer): Buffer {
  return tarOf({ [name]: bytes }).subarray(0, -TAR_END.length);
}

/** Runs a test for every second format, from the first or the second on, some at a time: most of it is waiting for links and threads. */
function eachFormat(
  name: string,
  run: (t: TestContext, random: Random, format: SampleFormat, number: number) => Promise<void>,
): void {
  test(name, { concurrency: 4 }, async (t) => {
    t.diagnostic(`SEED=${SEED}`);
    const one = ([number, format]: [number, SampleFormat]) =>
      t.test(format, (t) => run(t, seededRandom(SEED + name.length * 100 + number), format, number));
    await Promise.all([...SAMPLE_FORMATS.entries()].filter(([number]) => (SEED + number) % 2 === 0).map(one));
  });
}

eachFormat('random trees are pulled to the tars that were written', async (t, random, format) => {
  const layout = emptyLayout(t);
  const tars = [randomTar(random), randomTar(random), randomTar(random)];
  const written = await write(t, random, { layout, ref: 'it', format, tars });
  const diffIds = written.layers.map(({ diffId }) => diffId);
  if (KEEPING.includes(format)) assert.deepEqual(diffIds, tars.map(digestOf));
  const { host } = await startSandbox(t, { layout });
  const { result, events } = await pull(`${host}/x:it`, { store: temporaryDirectory(t) });
  assert.deepEqual(
    result.layers.map((layer) => [layer.diffId, layer.tarBytes]),
    written.layers.map((layer) => [layer.diffId, layer.tarBytes]),
  );
  assertProven(result);
  assert.deepEqual(warnings(events), []);
});

eachFormat(
  'another version of a tree, in any format, uses what the first one left',
  async (t, random, format, number) => {
    const layout = emptyLayout(t);
    const shared = entry('shared', noise(random.int(1, 1000), 300_000));
    const news = entry('new', noise(random.int(1001, 2000), random.int(1, 50_000)));
    const [before, between, behind] = [randomEntries(random), randomEntries(random), randomEntries(random)];
    const old = Buffer.concat([before, shared, behind, TAR_END]);
    const apart = Buffer.concat([between, before, news, shared, between, behind, TAR_END]);
    const next = Buffer.concat([news, behind, shared, before, TAR_END]);
    await write(t, random, { layout, ref: 'old', format, tars: [old] });
    const first = await write(t, random, {
      layout,
      ref: 'separate-frames',
      format: APART[number % 3]!,
      tars: [apart],
    });
    const nextFormat = SAMPLE_FORMATS[random.int(0, SAMPLE_FORMATS.length - 1)]!;
    const second = await write(t, random, { layout, ref: 'next', format: nextFormat, tars: [next] });
    const layers = ['separate-frames', 'next'].map((ref) => readManifest(layout, ref).layers[0]!);
    nameImage(layout, 'both', layers, [first.layers[0]!.diffId, second.layers[0]!.diffId]);

    const { host } = await startSandbox(t, { layout });
    const store = temporaryDirectory(t);
    await pull(`${host}/x:old`, { store });
    const { result, events } = await pull(`${host}/x:both`, { store });
    assertProven(result);
    assert.deepEqual(warnings(events), [], `${SEED}: ${nextFormat}`);
    const [layer] = result.layers;
    assert.ok(layer!.fetchedBytes < layer!.sizeBytes - 200_000, `${SEED}: ${JSON.stringify(layer)}`);
    assert.ok(layer!.reusedBytes >= 300_000, `${SEED}: ${JSON.stringify(layer)}`);
    assert.deepEqual(packFiles(store, '.idx.open'), []);
  },
);

const RATE_BYTES = 3e6;

/**
 * When so much had come, something of it must be left, however the pull ended: a killed process loses what came in the last
 * half second, and without tar-split each of about five connections loses the content that was coming.
 */
const ENOUGH_BYTES = 2.5e6;

/** Pulls until so many bytes were received; then the process is killed, or its server gone for good. */
async function cutOff(
  t: TestContext,
  how: 'killed' | 'deserted',
  pulling: { layout: string; store: string; atBytes: number },
): Promise<number> {
  const registry = await startSandbox(t, { layout: pulling.layout, rateBytes: RATE_BYTES });
  const image = `${registry.host}/x:it`;
  const options = { store: pulling.store, patienceMs: 10 };
  let receivedBytes = 0;
  const isEnough = (event: PullEvent): boolean => {
    if (event.event === 'progress') receivedBytes = Math.max(receivedBytes, event.receivedBytes);
    return receivedBytes >= pulling.atBytes;
  };
  if (how === 'killed') {
    const child = startPullingChild(t, { image, options }, (line, process) => {
      if (line.event !== undefined && isEnough(line)) process.kill('SIGKILL');
    });
    assert.equal(await child.gone, 'SIGKILL', `${SEED}: it ended before it was killed`);
    return receivedBytes;
  }
  let closing: Promise<void> | undefined;
  const onEvent = (event: PullEvent) => {
    if (isEnough(event)) closing ??= registry.close();
  };
  const error = await failureOf(pull(image, { ...options, onEvent }));
  assert.equal(error.code, 'network-hopeless');
  await closing;
  return receivedBytes;
}

eachFormat('a pull that was cut off anywhere goes on from there', async (t, random, format, number) => {
  const how = Math.floor((SEED + number) / 2) % 2 === 0 ? 'killed' : 'deserted';
  const layout = emptyLayout(t);
  const parts = Array.from({ length: random.int(20, 40) }, (_, i) => {
    const file = entry(`big-${i}`, noise(random.int(1, 9999), random.int(100_000, 200_000)));
    return random.chance(0.2) ? Buffer.concat([randomEntries(random), file]) : file;
  });
  const tars = [Buffer.concat([...parts, TAR_END])];
  const written = await write(t, random, { layout, ref: 'it', format, tars });
  const store = temporaryDirectory(t);
  const atBytes = Math.floor(written.blobBytes * random.int(1, 60) * 0.01);
  const receivedBytes = await cutOff(t, how, { layout, store, atBytes });
  assert.deepEqual(listedImages(store), []);

  const registry = await startSandbox(t, { layout });
  const { result, events } = await pull(`${registry.host}/x:it`, { store });
  assertProven(result);
  assert.deepEqual(warnings(events), []);
  const [layer] = result.layers;
  const { sizeBytes, fetchedBytes, resumedBytes, requests } = layer!;
  assert.equal(layer!.diffId, written.layers[0]!.diffId);
  t.diagnostic(`${how}: ${receivedBytes} received, ${fetchedBytes} of ${sizeBytes} fetched afterwards`);
  assert.equal(layerAsks(registry).length, requests);
  // The footer of eStargz is fetched with a guess of how long the TOC is, which can have some data that was resumed; that of zstd tells
  // whether there is a TOC.
  const twice = format === 'estargz' ? footerGuessBytes(sizeBytes) : CHUNKED_FOOTER_BYTES;
  assert.ok(fetchedBytes <= sizeBytes + twice, `seed ${SEED}: ${fetchedBytes} of ${sizeBytes}`);
  if (receivedBytes >= ENOUGH_BYTES)
    assert.ok(fetchedBytes < sizeBytes && resumedBytes > 0, `seed ${SEED}: ${how}, nothing was resumed`);
});

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { createGzip } from 'node:zlib';
import { TAR_END, tarHeader, tarPadding } from '../../src/format/tar-writer.js';
import { type LayerWriter, TarMeter } from '../../src/sandbox/layer-writer.js';
import { openBlob } from '../../src/sandbox/oci-layout.js';
import { type FormatOptions, formatWriter, type SampleFormat } from '../../src/sandbox/sample-format.js';
import { maxRssBytesOf, outcomesOf, startPullingChild } from '../support/child.js';
import { emptyLayout, nameImage, noise } from '../support/layout.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

/** What a pull may have more in memory for the larger layer: buffers that are not all in use by the smaller one. */
const MOST_GROWTH_BYTES = 100e6;

/** Node with the threads of two workers takes about 150 MB, spans and decoders under way the rest. */
const MOST_BYTES = 400e6;

const ZEROS = Buffer.alloc(2 ** 20);

/** Longer than any window: repeated, it is as good as noise without end. */
const NOISE = noise(1, 8 * 2 ** 20);

/** A tar of one file made of a block again and again. */
function* tarOfOne(block: Buffer, sizeBytes: number): Generator<Buffer> {
  const ids = { uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 };
  yield tarHeader({ type: '0', name: 'large', mode: 0o644, sizeBytes, ...ids });
  for (let at = 0; at < sizeBytes; at += block.length) yield block.subarray(0, sizeBytes - at);
  if (sizeBytes % 512 !== 0) yield tarPadding(sizeBytes);
  yield TAR_END;
}

/** gzip that does not try: noise takes ten times as long otherwise, and is no shorter. */
const writeStored: LayerWriter = async (tar, write) => {
  const meter = new TarMeter();
  const gzip = createGzip({ level: 0 });
  gzip.on('data', write);
  for (const piece of tar) {
    meter.add(piece);
    await new Promise((resolve) => gzip.write(piece, resolve));
  }
  await new Promise<void>((resolve) => gzip.on('end', resolve).end());
  return { diffId: meter.diffId(), tarBytes: meter.tarBytes, annotations: {} };
};

interface Case {
  readonly what: string;
  readonly block: Buffer;
  readonly format: SampleFormat;
  readonly options?: FormatOptions;
  readonly write?: LayerWriter;
  /** Sizes of the file that are compared. */
  readonly bytes: readonly [small: number, large: number];
}

const FRAMES = { frameBytes: 2 ** 20 };
const ZERO_BYTES = [30e6, 300e6] as const;
const NOISE_BYTES = [30e6, 150e6] as const;

/** Frames that decode to 32 MiB together are decoded at once, and of zeros some are in every hand. */
const FRAME_BYTES = [150e6, 300e6] as const;

/** Members of 4 MiB are decoded whole: with less than this not all connections have one. Noise takes gzip a second each 30 MB. */
const MEMBER_BYTES = [60e6, 120e6] as const;

const CASES: readonly Case[] = [
  { what: 'zeros in gzip', block: ZEROS, format: 'gzip', bytes: ZERO_BYTES },
  { what: 'zeros in zstd frames', block: ZEROS, format: 'zstd', options: FRAMES, bytes: FRAME_BYTES },
  { what: 'zeros in one zstd frame', block: ZEROS, format: 'zstd', bytes: ZERO_BYTES },
  { what: 'noise in gzip', block: NOISE, format: 'gzip', write: writeStored, bytes: NOISE_BYTES },
  { what: 'noise in one zstd frame', block: NOISE, format: 'zstd', bytes: NOISE_BYTES },
  { what: 'noise in zstd:chunked', block: NOISE, format: 'zstd:chunked-old', bytes: NOISE_BYTES },
  { what: 'noise in eStargz', block: NOISE, format: 'estargz', bytes: MEMBER_BYTES },
];

/** Peak memory of a process that pulls a layer of one such file. */
async function peakBytes(t: TestContext, one: Case, sizeBytes: number): Promise<number> {
  const layout = emptyLayout(t);
  const { mediaType, write } = formatWriter(one.format, one.options ?? {});
  const blob = openBlob(layout);
  const layer = await (one.write ?? write)(tarOfOne(one.block, sizeBytes), blob.write, () => {});
  const { digest, sizeBytes: size } = blob.finish();
  nameImage(layout, 'it', [{ mediaType, digest, size, annotations: layer.annotations }], [layer.diffId]);
  const { host } = await startSandbox(t, { layout });
  const store = temporaryDirectory(t);
  const options = { store, workers: 2, connections: 16 };
  const child = startPullingChild(t, { image: `${host}/x:it`, options });
  assert.equal(await child.gone, 0);
  const [outcome] = outcomesOf(child.lines);
  assert.ok(outcome !== undefined && 'verified' in outcome, JSON.stringify(outcome));
  assert.equal(outcome.layers[0]!.tarBytes, layer.tarBytes);
  for (const directory of [layout, store]) rmSync(directory, { recursive: true });
  return maxRssBytesOf(child.lines);
}

for (const one of CASES) {
  test(`memory does not grow with a file of ${one.what}`, async (t) => {
    const [small = 0, large = 0] = await Promise.all(one.bytes.map((bytes) => peakBytes(t, one, bytes)));
    t.diagnostic(`${(small / 1e6).toFixed(0)} MB, then ${(large / 1e6).toFixed(0)} MB`);
    assert.ok(large < MOST_BYTES, `${large} bytes`);
    assert.ok(large - small < MOST_GROWTH_BYTES, `${small} bytes, then ${large} bytes`);
  });
}

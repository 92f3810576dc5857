import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { createGzip } from 'node:zlib';
import { TAR_END, tarHeader, tarPadding } from '../../src/format/tar-writer.js';
import { openBlob } from '../../src/sandbox/image-writer.js';
import { type LayerWriter, TarMeter } from '../../src/sandbox/layer-writer.js';
import { maxRssBytesOf, outcomesOf, startPullingChild } from '../support/child.js';
import { type FormatOptions, formatWriter, type SampleFormat } from '../support/layers/sample-image.js';
import { emptyLayout, nameImage, noise } from '../support/layout.js';
import { ZPULL } from '../support/programs.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';

// What V8's compilers take counts here: processes are started as a user starts them.
process.execArgv.splice(0);

/** Node with the threads of two workers takes about 150 MB, spans and decoders under way the rest. */
const MAX_BYTES = 320e6;

const run = promisify(execFile);

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
  /** What a pull may take; default `MAX_BYTES`. */
  readonly maxBytes?: number;
}

/** A layer in memory would take this beside what the threads need. */
const FILE_BYTES = 200e6;

const FRAMES = { frameBytes: 2 ** 20 };

const CASES: readonly Case[] = [
  { what: 'zeros in gzip', block: ZEROS, format: 'gzip' },
  { what: 'zeros in zstd frames', block: ZEROS, format: 'zstd', options: FRAMES },
  { what: 'zeros in one zstd frame', block: ZEROS, format: 'zstd' },
  { what: 'noise in gzip', block: NOISE, format: 'gzip', write: writeStored },
  { what: 'noise in one zstd frame', block: NOISE, format: 'zstd' },
  { what: 'noise in zstd:chunked', block: NOISE, format: 'zstd:chunked-old' },
  // Each connection may have a member of 4 MiB as it comes, each thread one that is decoded: 205 MB.
  { what: 'noise in eStargz', block: NOISE, format: 'estargz', maxBytes: 256e6 },
];

/** Peak memory of a process that pulls a layer of one such file. */
async function peakBytes(t: TestContext, one: Case): Promise<number> {
  const layout = emptyLayout(t);
  const { mediaType, write } = formatWriter(one.format, one.options ?? {});
  const blob = openBlob(layout);
  const layer = await (one.write ?? write)(tarOfOne(one.block, FILE_BYTES), blob.write, () => {});
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
  return maxRssBytesOf(child.lines);
}

for (const one of CASES) {
  test(`a file of ${one.what} is never completely in memory`, async (t) => {
    const peak = await peakBytes(t, one);
    t.diagnostic(`${(peak / 1e6).toFixed(0)} MB`);
    assert.ok(peak < (one.maxBytes ?? MAX_BYTES), `${peak} bytes`);
  });
}

/** One thread that fetches, one that hashes and the main one take 100 to 105 MB (127 with Node 24); with the parser of HTTP answers optimized it was 133. */
const MAX_COPY_BYTES = 130e6;

/** Has a process write its largest resident size to its standard error when it ends. */
const TELL_PEAK =
  "import{isMainThread as m}from'node:worker_threads';import{readFileSync as r,writeSync as w}from'node:fs';" +
  "if(m)process.once('exit',()=>w(2,r('/proc/self/status','utf8')))";

/** Peak memory of a process that runs the command. */
async function peakOfCommand(...words: string[]): Promise<number> {
  const tellPeak = `--import=data:text/javascript,${TELL_PEAK}`;
  const { stderr } = await run(process.execPath, [tellPeak, ZPULL.at(-1)!, ...words]);
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(stderr)?.[1]) * 1024;
}

/** Two workers take 150 to 180 MB, the file tree of the entries the rest: 222 to 234 MB in all. */
const MAX_ROOTFS_BYTES = 280e6;

/** Four times as many as are followed while layers arrive. */
const ENTRIES = 260_000;

/** A tar of links below `a/`, with names as long as those of real files. */
function* tarOfLinks(): Generator<Buffer> {
  const ids = { uid: 0, gid: 0, mode: 0o777, sizeBytes: 0, mtimeSeconds: 0, mtimeNanos: 0 };
  for (let i = 0; i < ENTRIES; i += 1000) {
    const names = Array.from({ length: 1000 }, (_, j) => `a/some-name-of-a-file-${i + j}`);
    yield Buffer.concat(names.map((name) => tarHeader({ type: '2', name, linkName: 'elsewhere', ...ids })));
  }
  yield TAR_END;
}

test('a pull to a root file system of 260,000 entries takes less than 280 MB', async (t) => {
  const layout = emptyLayout(t);
  // The second layer hides all that the first has: nothing of it has to be written to the disk.
  const whiteout = { type: '0', name: '.wh.a', mode: 0o644, uid: 0, gid: 0, sizeBytes: 0 } as const;
  const hiding = [tarHeader({ ...whiteout, mtimeSeconds: 0, mtimeNanos: 0 }), TAR_END];
  const layers = [];
  for (const tar of [tarOfLinks(), hiding]) {
    const { mediaType, write } = formatWriter('gzip', {});
    const blob = openBlob(layout);
    const { diffId } = await write(tar, blob.write, () => {});
    const { digest, sizeBytes: size } = blob.finish();
    layers.push({ mediaType, digest, size, diffId });
  }
  nameImage(
    layout,
    'it',
    layers,
    layers.map(({ diffId }) => diffId),
  );
  const { host } = await startSandbox(t, { layout });
  const rootfs = `rootfs:${temporaryDirectory(t)}/root`;
  const options = ['-q', '--workers', '2', '--store', temporaryDirectory(t), '--output', rootfs];
  const peak = await peakOfCommand('pull', ...options, `${host}/x:it`);
  t.diagnostic(`${(peak / 1e6).toFixed(0)} MB`);
  assert.ok(peak < MAX_ROOTFS_BYTES, `${peak} bytes`);
});

test('a copy by the command takes less than 130 MB, however large its blobs are', async (t) => {
  const layout = emptyLayout(t);
  const blob = openBlob(layout);
  for (let at = 0; at < FILE_BYTES; at += NOISE.length) blob.write(NOISE);
  const { digest, sizeBytes: size } = blob.finish();
  const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size };
  nameImage(layout, 'it', [layer], [digest]);
  const { host } = await startSandbox(t, { layout });
  const oci = `oci:${temporaryDirectory(t)}/copy`;
  const peak = await peakOfCommand('copy', '-q', '--workers', '2', `${host}/x:it`, oci);
  t.diagnostic(`${(peak / 1e6).toFixed(0)} MB`);
  assert.ok(peak < MAX_COPY_BYTES, `${peak} bytes`);
});

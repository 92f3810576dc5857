import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { decompress } from '@mongodb-js/zstd';
import { FrameWalker } from '../../../src/format/zstd-frame.js';
import type { LayerWriter, WrittenLayer } from '../../../src/sandbox/layer-writer.js';
import { cutUp } from '../../support/chunked-layers.js';
import { writeGzipLayer, writeTarLayer, zstdWriter } from '../../support/layers/whole-writer.js';
import { noise, tarOf } from '../../support/layout.js';

const TAR = tarOf({ text: Buffer.from('abc '.repeat(100_000)), noise: noise(1, 700_000) });

async function write(
  writer: LayerWriter,
  pieces: Iterable<Buffer> = cutUp(TAR, 60_000),
): Promise<{ layer: WrittenLayer; blob: Buffer; doneBytes: number }> {
  const written: Buffer[] = [];
  let doneBytes = 0;
  const layer = await writer(
    pieces,
    (bytes) => written.push(bytes),
    (bytes) => {
      doneBytes += bytes;
    },
  );
  return { layer, blob: Buffer.concat(written), doneBytes };
}

function assertDecodes({ layer, doneBytes }: { layer: WrittenLayer; doneBytes: number }, tar: Buffer): void {
  assert.ok(tar.equals(TAR));
  assert.equal(layer.diffId, `sha256:${createHash('sha256').update(TAR).digest('hex')}`);
  assert.equal(layer.tarBytes, TAR.length);
  assert.equal(doneBytes, TAR.length);
  assert.deepEqual(layer.annotations, {});
}

/** The decoded size of each frame. */
async function frameSizes(blob: Buffer): Promise<number[]> {
  const walker = new FrameWalker();
  walker.advance(blob, blob.length);
  assert.equal(walker.completeBytes, blob.length);
  const sizes: number[] = [];
  for (let frame = 0, start = 0; frame < walker.frameCount; start = walker.frameEnd(frame++)) {
    sizes.push((await decompress(blob.subarray(start, walker.frameEnd(frame)))).length);
  }
  return sizes;
}

test('a plain tar is written as it came', async () => {
  const result = await write(writeTarLayer);
  assertDecodes(result, result.blob);
});

test('gzip is one member', async () => {
  const result = await write(writeGzipLayer);
  assertDecodes(result, gunzipSync(result.blob));
  assert.ok(result.blob.length < TAR.length);
  // The length modulo 2^32 that ends a member (RFC 1952, section 2.3.1) is that of the whole tar.
  assert.equal(result.blob.readUInt32LE(result.blob.length - 4), TAR.length);
});

test('zstd is one frame, or frames of the size that was asked for', async () => {
  for (const [frameBytes, sizes] of [
    [undefined, [TAR.length]],
    [TAR.length, [TAR.length]],
    [TAR.length - 1, [TAR.length - 1, 1]],
    [400_000, [400_000, 400_000, TAR.length - 800_000]],
    [1000, [...Array(Math.floor(TAR.length / 1000)).fill(1000), TAR.length % 1000]],
  ] as const) {
    const result = await write(zstdWriter(frameBytes));
    assertDecodes(result, await decompress(result.blob));
    assert.deepEqual(await frameSizes(result.blob), sizes, `frames of ${frameBytes}`);
  }
});

test('a tar without bytes is a frame of no bytes', async () => {
  const { blob, layer } = await write(zstdWriter(), []);
  assert.deepEqual(await frameSizes(blob), [0]);
  assert.equal(layer.tarBytes, 0);
});

test('a tar that does not fit into one frame is refused', async () => {
  const piece = Buffer.alloc(2 ** 26);
  const pieces = (function* () {
    for (let count = 0; count < 33; count += 1) yield piece;
  })();
  await assert.rejects(write(zstdWriter(), pieces), { code: 'unsupported' });
});

test('an error of a write ends the writer', async () => {
  for (const writer of [writeTarLayer, writeGzipLayer, zstdWriter(1000)]) {
    const full = () => {
      throw new Error('no space left');
    };
    await assert.rejects(
      writer([TAR], full, () => {}),
      { message: 'no space left' },
    );
  }
});

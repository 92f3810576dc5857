/** Reads the layers of test/fixtures/layout, and asserts on errors the way all of these tests do. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decompress } from '@mongodb-js/zstd';
import { type Digest, digestHex } from '../../../src/format/digest.js';
import { type ErrorCode, PullError } from '../../../src/format/error.js';
import { type ImageManifest, parseManifest } from '../../../src/format/manifest.js';
import { type ChunkedPositions, parseChunkedAnnotations } from '../../../src/format/metadata-position.js';

const layout = join(import.meta.dirname, '../../../../test/fixtures/layout');

export const IMAGES = [
  'sha256:a7cbf2be864cf34761affaf764b246eb44d3095472f3c120e0a0b3bb18198e9c',
  'sha256:3e4bbbeae6986e3a701e5f8457b7dc2e3b6f3b1d4bcc230af3fa5cad6e38110f',
] as Digest[];

export interface FixtureLayer {
  readonly digest: Digest;
  readonly blob: Buffer;
  readonly positions: ChunkedPositions;
  readonly toc: Buffer;
  readonly tarSplit: Buffer;
  /** The whole layer, decoded. */
  readonly tar: Buffer;
}

export function readBlob(digest: Digest): Buffer {
  return readFileSync(join(layout, 'blobs/sha256', digestHex(digest)));
}

export function readImage(digest: Digest): ImageManifest {
  const manifest = parseManifest(readBlob(digest));
  assert.equal(manifest.kind, 'manifest');
  return manifest as ImageManifest;
}

/** Every layer of both images, each once. */
export async function readLayers(): Promise<FixtureLayer[]> {
  const layers = new Map<Digest, FixtureLayer>();
  for (const image of IMAGES) {
    for (const layer of readImage(image).layers) {
      const blob = readBlob(layer.digest);
      const positions = parseChunkedAnnotations(layer.annotations, blob.length);
      assert.ok(positions?.tarSplit !== undefined);
      layers.set(layer.digest, {
        digest: layer.digest,
        blob,
        positions,
        toc: await decompress(blob.subarray(positions.toc.start, positions.toc.end)),
        tarSplit: await decompress(blob.subarray(positions.tarSplit.start, positions.tarSplit.end)),
        tar: await decompress(blob),
      });
    }
  }
  return [...layers.values()];
}

export function sha256(bytes: Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
}

/** Asserts that `act` throws a PullError of this code whose message matches. */
export function throwsError(act: () => unknown, code: ErrorCode, message: RegExp): void {
  assert.throws(act, (error) => {
    assert.ok(error instanceof PullError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}

/** Numbers in [0, 1) that are the same in every run (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

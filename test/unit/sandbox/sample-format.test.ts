import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  gzipMembers,
  readOldLayer,
  readStargzLayer,
  type StoredLayer,
  sha256,
  storedLayers,
  zstdMembers,
} from '../../support/dialect-layers.js';
import {
  type FormatOptions,
  SAMPLE_FORMATS,
  type SampleFormat,
  writeSampleImage,
} from '../../support/layers/sample-image.js';
import { seededRandom } from '../../support/random.js';
import { randomTar } from '../../support/random-tar.js';
import { temporaryDirectory } from '../../support/temporary.js';

const SEEDS = 25;

const COMPRESSIONS: Readonly<Record<SampleFormat, string>> = {
  'zstd:chunked': '+zstd',
  'zstd:chunked-annotated': '+zstd',
  'zstd:chunked-old': '+zstd',
  'stargz-zstd': '+zstd',
  estargz: '+gzip',
  gzip: '+gzip',
  zstd: '+zstd',
  tar: '',
};

/** The layer of an image of one tar. */
async function writeTar(
  t: TestContext,
  tar: Buffer,
  format: SampleFormat,
  options: FormatOptions,
): Promise<StoredLayer> {
  const layoutDir = temporaryDirectory(t);
  const path = join(layoutDir, 'layer.tar');
  writeFileSync(path, tar);
  await writeSampleImage({ layoutDir, ref: 'sample', sources: [{ kind: 'tar', path }], format, ...options });
  return storedLayers(layoutDir, 'sample')[0]!;
}

async function membersOf({ mediaType, blob }: StoredLayer) {
  if (mediaType.endsWith('+gzip')) return gzipMembers(blob);
  if (mediaType.endsWith('+zstd')) return zstdMembers(blob);
  return [{ start: 0, end: blob.length, raw: blob }];
}

for (const format of SAMPLE_FORMATS) {
  test(`random trees as ${format} decode to the tar of their DiffID, and what is stated of them is true`, async (t) => {
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const tar = randomTar(seededRandom(seed));
      const options = { chunkBytes: 100_000, minChunkBytes: (seed % 3) * 20_000, frameBytes: 300_000 };
      const layer = await writeTar(t, tar, format, options);
      const members = await membersOf(layer);
      const decoded = Buffer.concat(members.map(({ raw }) => raw));
      assert.equal(sha256(decoded), layer.diffId, `seed ${seed}`);
      assert.equal(layer.mediaType, `application/vnd.oci.image.layer.v1.tar${COMPRESSIONS[format]}`);
      if (format === 'stargz-zstd' || format === 'estargz') {
        await readStargzLayer(layer);
        continue;
      }
      assert.ok(decoded.equals(tar), `seed ${seed}`);
      if (format === 'zstd:chunked-old') await readOldLayer(layer);
      if (format === 'gzip') assert.equal(members.length, 1);
      if (format === 'zstd') assert.equal(members.length, Math.max(1, Math.ceil(tar.length / 300_000)));
      const isPlain = format === 'gzip' || format === 'zstd' || format === 'tar';
      assert.equal(Object.keys(layer.annotations).length === 0, isPlain);
    }
  });
}

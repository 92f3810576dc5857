import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { SAMPLE_FORMATS } from '../../../src/sandbox/sample-format.js';
import { writeSampleImage } from '../../../src/sandbox/sample-image.js';
import { gzipMembers, sha256, storedLayers, zstdMembers } from '../../support/dialect-layers.js';
import { seededRandom } from '../../support/random.js';
import { randomTar } from '../../support/random-tar.js';
import { temporaryDirectory } from '../../support/temporary.js';

const SEEDS = 25;

async function decode(mediaType: string, blob: Buffer): Promise<Buffer> {
  if (!mediaType.includes('+')) return blob;
  const members = mediaType.endsWith('+gzip') ? gzipMembers(blob) : await zstdMembers(blob);
  return Buffer.concat(members.map(({ raw }) => raw));
}

test('random trees decode to the tar of their DiffID in every format', async (t) => {
  const layoutDir = temporaryDirectory(t);
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const tar = randomTar(seededRandom(seed));
    const path = join(layoutDir, 'layer.tar');
    writeFileSync(path, tar);
    for (const format of SAMPLE_FORMATS) {
      const options = { chunkBytes: 100_000, minChunkBytes: (seed % 3) * 20_000, frameBytes: 300_000 };
      const image = { layoutDir, ref: format, sources: [{ kind: 'tar', path }], format, ...options } as const;
      await writeSampleImage(image);
      const [layer] = storedLayers(layoutDir, format);
      const decoded = await decode(layer!.mediaType, layer!.blob);
      const what = `${format} of seed ${seed}`;
      assert.equal(sha256(decoded), layer!.diffId, what);
      if (!format.includes('stargz')) assert.ok(decoded.equals(tar), what);
      const type = format.includes('zstd')
        ? '+zstd'
        : format.endsWith('z') || format === 'gzip'
          ? '+gzip'
          : '';
      assert.equal(layer!.mediaType, `application/vnd.oci.image.layer.v1.tar${type}`);
    }
  }
});

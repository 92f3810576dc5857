import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compress } from '@mongodb-js/zstd';
import { decodeMetadata } from '../../../../workers/metadata/metadata-blob.js';
import { noise } from '../../../support/layout.js';

const MIB = 2 ** 20;
const BLOCK_BYTES = 128 * 1024;

/** A frame of blocks that repeat one byte: each is four bytes long and decodes to 128 KiB. */
function bombOf(blocks: number): Buffer {
  const parts = [Buffer.from('28b52ffd0038', 'hex')];
  for (let i = 1; i <= blocks; i++) {
    const header = (BLOCK_BYTES << 3) | 2 | Number(i === blocks);
    parts.push(Buffer.from([header & 0xff, (header >> 8) & 0xff, header >> 16, 32]));
  }
  return Buffer.concat(parts);
}

test('metadata of the stated size is decoded, in one frame or several', async () => {
  for (const sizeBytes of [1, 300, 5 * MIB]) {
    const text = Buffer.alloc(sizeBytes, '{"type":"reg"},');
    assert.deepEqual(await decodeMetadata(await compress(text, 3), sizeBytes, 'TOC'), text);
  }
  const parts = Array.from({ length: 100 }, (_, i) => noise(i, 3000));
  const frames = Buffer.concat(await Promise.all(parts.map((part) => compress(part, 3))));
  assert.deepEqual(await decodeMetadata(frames, 300_000, 'TOC'), Buffer.concat(parts));
});

test('metadata that could decode to far more than it states is refused before it is decoded', async () => {
  const frames = bombOf(160);
  // It is sound: where it states the truth it is decoded.
  assert.equal((await decodeMetadata(frames, 20 * MIB, 'TOC')).length, 20 * MIB);
  for (const stated of [100, 5 * MIB, 9 * MIB]) {
    await assert.rejects(decodeMetadata(frames, stated, 'TOC'), {
      code: 'metadata-malformed',
      message: /the TOC could decode to far more than/,
    });
  }
});

test('metadata that is longer or shorter than stated is refused', async () => {
  const frames = await compress(noise(1, 1000), 3);
  for (const stated of [999, 1001, 100_000]) {
    await assert.rejects(decodeMetadata(frames, stated, 'tar-split'), {
      code: 'metadata-malformed',
      message: `the tar-split has 1000 bytes, ${stated} are stated`,
    });
  }
});

test('metadata that is empty or no complete frame is refused', async () => {
  const frame = await compress(noise(1, 1000), 3);
  const broken = Buffer.from(bombOf(1));
  broken[4] = 0x04; // it promises a checksum, which would be behind the end
  for (const bytes of [
    Buffer.alloc(0),
    frame.subarray(0, -1),
    Buffer.concat([frame, frame.subarray(0, 9)]),
  ]) {
    await assert.rejects(decodeMetadata(bytes, 1000, 'TOC'), { code: 'metadata-malformed' });
  }
  await assert.rejects(decodeMetadata(broken, BLOCK_BYTES, 'TOC'), { code: 'metadata-malformed' });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { floorPieces } from '../../../bench/floor-pieces.js';

const layer = { digest: '', diffId: '', blobPath: '', blobBytes: 0, metadataBytes: 0 };
const chunk = (sizeBytes: number, blobStart: number, blobEnd: number, endsContent = true) => ({
  digest: '',
  sizeBytes,
  blobStart,
  blobEnd,
  endsContent,
});

test('pieces tile the frames of a layer and are cut at about 1 MiB', () => {
  const chunks = [chunk(600_000, 10, 100), chunk(600_000, 120, 200), chunk(5, 210, 220)];
  assert.deepEqual(floorPieces({ ...layer, dataEnd: 250, gapsWithin: false, chunks }), [
    { blobStart: 0, blobEnd: 200 },
    { blobStart: 200, blobEnd: 250 },
  ]);
});

test('a layer without contents is one piece of headers', () => {
  assert.deepEqual(floorPieces({ ...layer, dataEnd: 40, gapsWithin: false, chunks: [] }), [
    { blobStart: 0, blobEnd: 40 },
  ]);
});

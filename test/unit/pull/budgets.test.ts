import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDigest } from '../../../src/format/digest.js';
import { formatBytes } from '../../../src/format/figures.js';
import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../../../src/format/metadata-position.js';
import { acquireRoom, roomLeft } from '../../../src/pool/shared-memory.js';
import { DecodedAllowance, fetchThreads, streamsAtATime, supportThreads } from '../../../src/pull/budgets.js';
import { likelyStreamBytes, type MissingLayer } from '../../../src/pull/layer.js';
import { fakeLayer } from '../../support/fake-context.js';
import { tableOf } from '../../support/layer-tables.js';

const GIB = 2 ** 30;

/** A layer with a blob of 1000 bytes. */
function layerOf(number: number): MissingLayer {
  return { ...fakeLayer(), diffId: parseDigest(`sha256:${String(number).padStart(64, '0')}`, 'DiffID') };
}

const RATIO_BYTES = 1000 * MAX_DECODED_RATIO;

/** What a layer may decode to beyond the ratio. */
function freeBytes(allowance: DecodedAllowance, layer: MissingLayer): number {
  const { room, takenBytes } = allowance.forOpaque(layer);
  return takenBytes + roomLeft(room);
}

/** A layer is decoded as one stream, up to so many bytes beyond the ratio. */
function decode(allowance: DecodedAllowance, layer: MissingLayer, bytes: number): boolean {
  const { room, takenBytes } = allowance.forOpaque(layer);
  const isTaken = acquireRoom(room, Math.max(0, bytes - takenBytes));
  if (isTaken) allowance.noteOpaque(layer, RATIO_BYTES + bytes);
  return isTaken;
}

test('a layer may have a sparse file of 10 GiB, and no 64 GiB of zeros', () => {
  const allowance = new DecodedAllowance();
  assert.equal(freeBytes(allowance, layerOf(1)), 10 * GIB);
  const bomb = tableOf([], 800, 64 * GIB);
  assert.throws(() => allowance.noteTable(layerOf(1), bomb), { code: 'metadata-malformed' });
  assert.ok(!decode(allowance, layerOf(1), 64 * GIB));
});

test('bytes that layers decode to beyond the ratio come out of one allowance for all of them', () => {
  const allowance = new DecodedAllowance();
  const [first, second, third] = [layerOf(1), layerOf(2), layerOf(3)];
  allowance.noteTable(first, tableOf([], 800, RATIO_BYTES));
  assert.equal(freeBytes(allowance, third), FREE_DECODED_BYTES);
  assert.ok(decode(allowance, second, 5));
  assert.equal(freeBytes(allowance, third), FREE_DECODED_BYTES - 5);
  assert.ok(decode(allowance, first, FREE_DECODED_BYTES - 5));
  assert.equal(freeBytes(allowance, third), 0);
});

test('a layer that is decoded once more, or as an opaque one after its table, counts once', () => {
  const allowance = new DecodedAllowance();
  const [layer, other] = [layerOf(1), layerOf(2)];
  allowance.noteTable(layer, tableOf([], 800, RATIO_BYTES + 5 * GIB));
  assert.equal(freeBytes(allowance, layer), FREE_DECODED_BYTES);
  assert.equal(freeBytes(allowance, other), FREE_DECODED_BYTES - 5 * GIB);
  assert.ok(decode(allowance, layer, 6 * GIB));
  assert.ok(decode(allowance, layer, 3 * GIB));
  assert.equal(freeBytes(allowance, layer), FREE_DECODED_BYTES);
  assert.equal(freeBytes(allowance, other), FREE_DECODED_BYTES - 6 * GIB);
});

test('a table that states more than the allowance is malformed, and acquires nothing', () => {
  const allowance = new DecodedAllowance();
  const most = RATIO_BYTES + FREE_DECODED_BYTES;
  const tooMuch = {
    code: 'metadata-malformed',
    message: new RegExp(`states ${formatBytes(most + 1)} for a blob of 1\\.0 kB`),
  };
  assert.throws(() => allowance.noteTable(layerOf(1), tableOf([], 800, most + 1)), tooMuch);
  allowance.noteTable(layerOf(1), tableOf([], 800, most));
  assert.equal(freeBytes(allowance, layerOf(2)), 0);
  allowance.noteTable(layerOf(2), tableOf([], 800, RATIO_BYTES));
});

const LARGE_BYTES = 100e6;
const MEMORY_BYTES = 64e9;

/** Support threads of a pull of so many large streams and other layers. */
function threadsFor(
  workers: number,
  streams: number,
  others = 0,
  sizeBytes = LARGE_BYTES,
  memoryBytes = MEMORY_BYTES,
): number {
  const streamBytes = Array.from({ length: streams }, () => sizeBytes);
  return supportThreads({ workers, connections: 16, memoryBytes, layers: streams + others, streamBytes });
}

test('opaque layers have two support threads each, but no more than there are workers', () => {
  const counts = [1, 2, 4, 8, 16].map((workers) => [1, 4, 12].map((streams) => threadsFor(workers, streams)));
  assert.deepEqual(counts, [
    [1, 1, 1],
    [2, 2, 2],
    [2, 4, 4],
    [2, 8, 8],
    [2, 8, 16],
  ]);
});

test('chunked layers have one support thread for two workers, at most four, and opaque layers beside them have as many', () => {
  const counts = [1, 2, 4, 8, 16].map((workers) => [
    threadsFor(workers, 0, 1),
    threadsFor(workers, 0, 12),
    threadsFor(workers, 8, 1),
  ]);
  assert.deepEqual(counts, [
    [1, 1, 1],
    [1, 1, 1],
    [1, 2, 2],
    [1, 4, 4],
    [1, 4, 8],
  ]);
});

test('opaque layers that are decoded faster than a thread starts add no thread', () => {
  assert.deepEqual(
    [1e3, 1e6, 2e6].map((sizeBytes) => threadsFor(16, 8, 0, sizeBytes)),
    [4, 4, 4],
  );
  assert.equal(threadsFor(16, 1, 0, 1e6), 1);
  assert.equal(threadsFor(16, 100, 0, 1e6), 12, 'many small ones are together as one large one');
});

test('no pull has more support threads than connections, as each requests metadata', () => {
  const streamBytes = [LARGE_BYTES, LARGE_BYTES];
  assert.equal(
    supportThreads({ workers: 8, connections: 3, memoryBytes: MEMORY_BYTES, layers: 2, streamBytes }),
    3,
  );
});

test('one thread fetches a few bytes, or for four decoders; all workers fetch chunked layers', () => {
  assert.deepEqual(
    [1, 2, 4, 5, 8, 16].map((workers) => fetchThreads(workers, LARGE_BYTES, true)),
    [1, 1, 1, 2, 2, 4],
  );
  assert.deepEqual(
    [1, 2, 16].map((workers) => fetchThreads(workers, LARGE_BYTES, false)),
    [1, 2, 16],
  );
  assert.equal(fetchThreads(16, 1e6, false), 1);
});

test('as many opaque layers are decoded at a time as workers and memory allow, at least two', () => {
  const counts = [64e9, 1e9, 0].map((bytes) =>
    [1, 2, 3, 8, 16].map((workers) => streamsAtATime(workers, bytes)),
  );
  assert.deepEqual(counts, [
    [2, 2, 3, 8, 16],
    [2, 2, 3, 3, 3],
    [2, 2, 2, 2, 2],
  ]);
  assert.equal(threadsFor(16, 12, 0, LARGE_BYTES, 1e9), 6);
});

test('a layer is likely opaque unless its descriptor says where a table of contents is', () => {
  const { blob, location } = fakeLayer();
  const footer = { by: 'footer', compression: 'zstd' } as const;
  const stargz = { by: 'footer', compression: 'gzip', tocDigest: blob.digest } as const;
  assert.deepEqual(likelyStreamBytes([{ blob }, { blob, location: location! }]), [blob.sizeBytes]);
  assert.deepEqual(
    likelyStreamBytes([
      { blob, location: footer },
      { blob, location: stargz },
    ]),
    [blob.sizeBytes],
  );
});

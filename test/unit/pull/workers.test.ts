import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  fetchThreads,
  likelyStreamBytes,
  streamsAtATime,
  supportThreads,
} from '../../../src/pull/workers.js';
import { fakeLayer } from '../../support/fake-context.js';

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

test('streams have two support threads each, as long as there are no more than workers', () => {
  const counts = [1, 2, 4, 8, 16].map((workers) => [1, 4, 12].map((streams) => threadsFor(workers, streams)));
  assert.deepEqual(counts, [
    [1, 1, 1],
    [2, 2, 2],
    [2, 4, 4],
    [2, 8, 8],
    [2, 8, 16],
  ]);
});

test('chunked layers have one support thread for two workers, at most four, and leave as many to streams beside them', () => {
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

test('streams that take less to decode than a thread to start add none', () => {
  assert.deepEqual(
    [1e3, 1e6, 2e6].map((sizeBytes) => threadsFor(16, 8, 0, sizeBytes)),
    [4, 4, 4],
  );
  assert.equal(threadsFor(16, 1, 0, 1e6), 1);
  assert.equal(threadsFor(16, 100, 0, 1e6), 12, 'many small ones are together as one large one');
});

test('no pull has more support threads than connections, as each asks for metadata', () => {
  const streamBytes = [LARGE_BYTES, LARGE_BYTES];
  assert.equal(
    supportThreads({ workers: 8, connections: 3, memoryBytes: MEMORY_BYTES, layers: 2, streamBytes }),
    3,
  );
});

test('one thread fetches little, or for four decoders; all workers fetch chunked layers', () => {
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

test('as many streams are decoded at a time as there are workers and memory for them, two at least', () => {
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

test('a layer is likely a stream unless its descriptor says where a table of contents is', () => {
  const { blob, place } = fakeLayer();
  const footer = { by: 'footer', compression: 'zstd' } as const;
  const stargz = { by: 'footer', compression: 'gzip', tocDigest: blob.digest } as const;
  assert.deepEqual(likelyStreamBytes([{ blob }, { blob, place: place! }]), [blob.sizeBytes]);
  assert.deepEqual(
    likelyStreamBytes([
      { blob, place: footer },
      { blob, place: stargz },
    ]),
    [blob.sizeBytes],
  );
});

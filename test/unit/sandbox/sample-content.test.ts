import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { compress } from '@mongodb-js/zstd';
import { contentPieces } from '../../../src/sandbox/sample-content.js';

const MEBIBYTE = 2 ** 20;

function bytesOf(kind: 'text' | 'noise', seed: number, sizeBytes: number): Buffer {
  return Buffer.concat([...contentPieces({ kind, seed, sizeBytes })]);
}

test('a content has its size, in pieces of at most a mebibyte', () => {
  for (const kind of ['text', 'noise'] as const) {
    for (const sizeBytes of [0, 1, 3, 4096, MEBIBYTE, MEBIBYTE + 1]) {
      const pieces = [...contentPieces({ kind, seed: 1, sizeBytes })];
      assert.equal(Buffer.concat(pieces).length, sizeBytes);
      assert.equal(pieces.length, Math.ceil(sizeBytes / MEBIBYTE));
    }
  }
});

test('the bytes of a seed never change: the digests of a sample are the same everywhere', () => {
  const digest = (kind: 'text' | 'noise') =>
    createHash('sha256')
      .update(bytesOf(kind, 1, 100_000))
      .digest('hex');
  assert.equal(digest('text'), '3443921065b87f052d1e3cabda150c8f45599cb6502912ffaffc3500a121e67b');
  assert.equal(digest('noise'), '8eb38e4eecd6597adaa93a0917a943811a6a3c966ee4e8a5224f45fe07100248');
});

test('another seed gives other bytes', () => {
  assert.notDeepEqual(bytesOf('text', 1, 1000), bytesOf('text', 2, 1000));
  assert.notDeepEqual(bytesOf('noise', 1, 1000), bytesOf('noise', 2, 1000));
});

test('text shrinks to about a third and noise hardly at all', async () => {
  const ratio = async (kind: 'text' | 'noise') => (await compress(bytesOf(kind, 1, 65_536))).length / 65_536;
  const [text, noise] = [await ratio('text'), await ratio('noise')];
  assert.ok(text > 0.28 && text < 0.4, `text ${text}`);
  assert.ok(noise > 0.9 && noise < 1, `noise ${noise}`);
});

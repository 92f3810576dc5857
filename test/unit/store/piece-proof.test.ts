import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { PackReader } from '../../../src/store/pack-reader.js';
import { packPath } from '../../../src/store/paths.js';
import { PieceProof } from '../../../src/store/piece-proof.js';
import { flipByte } from '../../support/packs.js';
import { freshStore, randomBytes, seededRandom, writePack } from './support.js';

test('the corrupt parts of a run are those in pieces whose bytes have changed', (t) => {
  const paths = freshStore(t);
  const random = seededRandom(11);
  const bytes = randomBytes(random, 3000);
  const { id } = writePack(paths, [bytes]);
  const reader = new PackReader(paths);
  t.after(() => reader.close());
  const proof = new PieceProof(reader, id);
  const isFalse = new Array<boolean>(bytes.length).fill(false);
  // Pieces of some length with holes between them, taken down in no order.
  const pieces: [offset: number, length: number][] = [];
  for (let at = 10; at < 2900; at += 100) pieces.push([at, 10 + Math.floor(random() * 91)]);
  for (const [offset, length] of pieces.toSorted(() => random() - 0.5)) {
    proof.add(offset, length, crc32(bytes.subarray(offset, offset + length)));
    if (random() < 0.6) continue;
    flipByte(packPath(paths, id), offset + Math.floor(random() * length));
    isFalse.fill(true, offset, offset + length);
  }
  for (let i = 0; i < 500; i++) {
    const offset = Math.floor(random() * 2990);
    const length = 1 + Math.floor(random() * Math.min(400, 3000 - offset));
    const told = new Array<boolean>(bytes.length).fill(false);
    for (const part of proof.corruptParts(offset, length))
      told.fill(true, part.offset, part.offset + part.lengthBytes);
    const expected = isFalse.map((bad, at) => bad && at >= offset && at < offset + length);
    assert.deepEqual(told, expected, `[${offset}, ${offset + length})`);
  }
});

test('a run is covered by intact pieces without a gap', (t) => {
  const paths = freshStore(t);
  const bytes = randomBytes(seededRandom(12), 400);
  const { id } = writePack(paths, [bytes]);
  const reader = new PackReader(paths);
  t.after(() => reader.close());
  const proof = new PieceProof(reader, id);
  const sum = (start: number, end: number) => crc32(bytes.subarray(start, end));
  proof.add(100, 100, sum(100, 200));
  proof.add(0, 100, sum(0, 100));
  proof.add(210, 90, sum(210, 300));
  proof.add(300, 100, sum(300, 400) ^ 1);
  const cases: [offset: number, length: number, covered: boolean][] = [
    [0, 200, true],
    [50, 100, true],
    [150, 60, false],
    [205, 5, false],
    [210, 90, true],
    [250, 51, false],
    [300, 1, false],
  ];
  for (const [offset, length, covered] of cases) assert.equal(proof.covers(offset, length), covered);
});

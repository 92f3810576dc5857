import assert from 'node:assert/strict';
import { truncateSync, unlinkSync } from 'node:fs';
import { test } from 'node:test';
import { ExtentList } from '../../../src/store/extents.js';
import { ifMissing, MAX_OPEN_PACKS, PackReader, shareOpenPacks } from '../../../src/store/pack-reader.js';
import { newPackId, packPath } from '../../../src/store/paths.js';
import { freshStore, randomBytes, seededRandom, writePack } from './support.js';

const isMissing = (error: unknown) => ifMissing(error, true);

test('blocks are the concatenated bytes of the extents, and all but the last are full', (t) => {
  const paths = freshStore(t);
  const random = seededRandom(5);
  const packs = Array.from({ length: 3 }, () => {
    const bytes = randomBytes(random, 5000);
    return { bytes, id: writePack(paths, [bytes]).id };
  });
  const extents = new ExtentList();
  const parts: Buffer[] = [];
  for (let i = 0; i < 400; i++) {
    const { bytes, id } = packs[Math.floor(random() * 3)]!;
    const offset = Math.floor(random() * 4000);
    const length = Math.floor(random() * (i % 10 === 0 ? 1000 : 20));
    extents.push(id, offset, length);
    parts.push(bytes.subarray(offset, offset + length));
  }
  const reader = new PackReader(paths);
  for (const blockBytes of [1, 100, 4096, extents.lengthBytes - 1, extents.lengthBytes, 2 ** 20]) {
    const blocks = Array.from(reader.blocks(extents, blockBytes), (block) => Buffer.from(block));
    assert.ok(blocks.slice(0, -1).every((block) => block.length === blockBytes));
    assert.deepEqual(Buffer.concat(blocks), Buffer.concat(parts));
  }
  assert.deepEqual([...reader.blocks(new ExtentList())], []);
  reader.close();
});

test('at most 64 packs are open, and the least recently used is closed first', (t) => {
  const paths = freshStore(t);
  const ids = Array.from({ length: MAX_OPEN_PACKS + 6 }, (_, i) => writePack(paths, [Buffer.from([i])]).id);
  const reader = new PackReader(paths);
  const byte = Buffer.alloc(1);
  const read = (row: number) => {
    reader.readInto(byte, 0, ids[row]!, 0, 1);
    return byte[0];
  };
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < ids.length; i++) {
      assert.equal(read(i), i);
      assert.ok(reader.openPacks <= MAX_OPEN_PACKS);
    }
  }
  reader.close();
  for (let i = 0; i < MAX_OPEN_PACKS; i++) read(i);
  read(0);
  read(MAX_OPEN_PACKS);
  assert.equal(reader.openPacks, MAX_OPEN_PACKS);
  if (process.platform !== 'win32') {
    // Pack 0 was used again and is still open; pack 1 had to go.
    for (const row of [0, 1]) unlinkSync(packPath(paths, ids[row]!));
    assert.equal(read(0), 0);
    assert.throws(() => read(1), isMissing);
  }
  reader.close();
  assert.equal(reader.openPacks, 0);
});

test('readers share the limit of 64, also with other threads, and each has at least one', (t) => {
  const paths = freshStore(t);
  const ids = Array.from({ length: MAX_OPEN_PACKS }, (_, i) => writePack(paths, [Buffer.from([i])]).id);
  const [one, two] = [new PackReader(paths), new PackReader(paths)];
  const byte = Buffer.alloc(1);
  const readAll = (reader: PackReader) => {
    for (const [i, id] of ids.entries()) {
      reader.readInto(byte, 0, id, 0, 1);
      assert.equal(byte[0], i);
    }
  };
  readAll(one);
  readAll(two);
  assert.deepEqual([one.openPacks, two.openPacks], [MAX_OPEN_PACKS, 1]);
  one.readInto(byte, 0, writePack(paths, [byte]).id, 0, 1);
  assert.deepEqual([one.openPacks, two.openPacks], [MAX_OPEN_PACKS - 1, 1], 'who has more gives way');
  one.close();
  two.close();
  const all = new Uint32Array(new SharedArrayBuffer(4)).fill(MAX_OPEN_PACKS - 2);
  shareOpenPacks(all);
  t.after(() => shareOpenPacks(new Uint32Array(1)));
  const three = new PackReader(paths);
  readAll(three);
  assert.deepEqual([three.openPacks, all[0]], [2, MAX_OPEN_PACKS]);
  assert.throws(() => three.readInto(byte, 0, newPackId(), 0, 1), isMissing);
  three.close();
  assert.equal(all[0], MAX_OPEN_PACKS - 2);
});

test('missing bytes of a pack have an error of their own', (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.alloc(100)]);
  truncateSync(packPath(paths, id), 60);
  const reader = new PackReader(paths);
  const target = Buffer.alloc(100);
  reader.readInto(target, 0, id, 0, 60);
  assert.throws(() => reader.readInto(target, 0, id, 40, 21), {
    code: 'store-broken',
    message: `${packPath(paths, id)} does not have the bytes [40, 61)`,
  });
  assert.throws(() => reader.readInto(target, 0, newPackId(), 0, 1), isMissing);
  const extents = new ExtentList();
  extents.push(id, 0, 100);
  assert.throws(() => [...reader.blocks(extents)], { code: 'store-broken' });
  reader.close();
});

test('a reader that was closed opens its packs again', (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [Buffer.from('x')]);
  const reader = new PackReader(paths);
  const target = Buffer.alloc(1);
  reader.readInto(target, 0, id, 0, 1);
  reader.close();
  reader.readInto(target, 0, id, 0, 1);
  assert.equal(target.toString(), 'x');
  reader.close();
});

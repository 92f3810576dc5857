import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CachedContents,
  listCachedContents,
  noCachedContents,
  type PackLocation,
} from '../../../src/store/cached-contents.js';
import { markBad, removePack, sealPack } from '../../../src/store/pack-files.js';
import type { StorePaths } from '../../../src/store/paths.js';
import { noise } from '../../support/layout.js';
import { freshStore, sha256, writePack } from './support.js';

const LEAST = 4096;
const MIB = 2 ** 20;

/** A sealed pack of these contents. */
async function sealed(paths: StorePaths, contents: Buffer[]) {
  const pack = writePack(paths, contents);
  await sealPack(paths, pack.id);
  return pack;
}

/** Where each content may lie. */
function find(paths: StorePaths, contents: readonly Buffer[]): PackLocation[][] {
  const held = new CachedContents(listCachedContents(paths));
  return contents.map((content) => [...held.locations(content.length, sha256(content))]);
}

test('contents of sealed packs are found, except for small ones', async (t) => {
  const paths = freshStore(t);
  const [small, least, large] = [noise(1, LEAST - 1), noise(2, LEAST), noise(3, MIB)];
  const { id, offsets } = await sealed(paths, [small, least, large]);
  const unsealed = noise(4, LEAST);
  writePack(paths, [unsealed]);
  assert.deepEqual(find(paths, [small, least, large, unsealed]), [
    [],
    [{ pack: id, offset: offsets[1] }],
    [{ pack: id, offset: offsets[2] }],
    [],
  ]);
});

test('a store without such contents gives an empty table', async (t) => {
  const paths = freshStore(t);
  assert.deepEqual(listCachedContents(paths), noCachedContents());
  await sealed(paths, [noise(1, LEAST - 1)]);
  assert.deepEqual(listCachedContents(paths), noCachedContents());
  assert.equal(noCachedContents().slots.length, 0);
  assert.equal(new CachedContents(noCachedContents()).accepts(LEAST), false);
});

test('contents in bad runs or beyond the end of the pack are not found', async (t) => {
  const paths = freshStore(t);
  const contents = [noise(1, LEAST), noise(2, LEAST)];
  const { id, offsets } = await sealed(paths, contents);
  markBad(paths, id, [{ offset: offsets[0]! + 17, lengthBytes: 1 }]);
  assert.deepEqual(find(paths, contents), [[], [{ pack: id, offset: offsets[1] }]]);
  await removePack(paths, id);
  assert.deepEqual(find(paths, contents), [[], []]);
});

test('a content in several packs is found in one; of large ones up to four of a size are found', async (t) => {
  const paths = freshStore(t);
  const content = noise(1, LEAST);
  const large = [2, 3, 4, 5, 6].map((seed) => noise(seed, MIB + 1));
  const packs = [];
  for (const each of large) packs.push(await sealed(paths, [content, each]));
  const [small, alike] = find(paths, [content, Buffer.alloc(MIB + 1)]);
  assert.equal(small!.length, 1);
  assert.ok(packs.some(({ id, offsets }) => id === small![0]!.pack && offsets[0] === small![0]!.offset));
  assert.equal(alike!.length, 4);
  for (const { pack, offset } of alike!)
    assert.ok(packs.some(({ id, offsets }) => id === pack && offsets[1] === offset));
});

test('each of thousands of contents is found at its location', async (t) => {
  const paths = freshStore(t);
  const contents = Array.from({ length: 4000 }, (_, i) => {
    const content = Buffer.alloc(LEAST + (i % 3));
    content.writeUInt32LE(i);
    return content;
  });
  const { id, offsets } = await sealed(paths, contents);
  const expected = offsets.map((offset) => [{ pack: id, offset }]);
  assert.deepEqual(find(paths, contents), expected);
  const others = contents.slice(0, 1000).map((content) => Buffer.from(content).fill(1, 8));
  assert.ok(find(paths, others).every((places) => places.length === 0));
});

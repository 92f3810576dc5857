import assert from 'node:assert/strict';
import { mkdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { CounterReader, createCounters } from '../../../../src/pool/shared-memory.js';
import {
  type CachedContentRows,
  CachedContents,
  listCachedContents,
  noCachedContents,
} from '../../../../src/store/cached-contents.js';
import { ExtentList, type ExtentRows } from '../../../../src/store/extents.js';
import { lookUp } from '../../../../src/store/look-up.js';
import { readBadRuns, removePack, sealPack } from '../../../../src/store/pack-files.js';
import { type PackId, packPath, type StorePaths } from '../../../../src/store/paths.js';
import { OpaqueWriter } from '../../../../workers/opaque/opaque-writer.js';
import { noise, tarOf } from '../../../support/layout.js';
import { flipByte } from '../../../support/packs.js';
import { type Random, seededRandom } from '../../../support/random.js';
import { randomEntries } from '../../../support/random-tar.js';
import { readExtents } from '../../../support/streams.js';
import { digestOf, freshStore, sha256, writePack } from '../../store/support.js';

const MIB = 2 ** 20;

/** A store whose one pack, which is sealed, has these contents. */
async function storeWith(t: TestContext, contents: Buffer[]) {
  const paths = freshStore(t);
  const pack = writePack(paths, contents);
  await sealPack(paths, pack.id);
  return { paths, ...pack };
}

interface Written {
  readonly extents: ExtentList;
  /** The pack of the stream. */
  readonly pack: PackId | null;
  readonly writtenBytes: number;
}

/** Writes a tar in blocks of this size, and checks that the extents are that tar. */
function write(paths: StorePaths, tar: Buffer, cached: CachedContentRows, blockBytes = MIB): Written {
  const extents = new ExtentList();
  const counters = createCounters();
  const report = (rows: ExtentRows) => extents.append(ExtentList.fromRows(rows));
  const writer = new OpaqueWriter({ paths, counters, cached, report });
  for (let at = 0; at < tar.length; at += blockBytes)
    writer.write(Buffer.from(tar.subarray(at, at + blockBytes)));
  writer.end();
  writer.close();
  assert.equal(writer.tarBytes, tar.length);
  assert.ok(readExtents(paths.root, extents).equals(tar));
  const writtenBytes = new CounterReader(counters, 'written').total();
  return { extents, pack: writer.pack, writtenBytes };
}

/** Rows as `start: pack+offset`, where the pack is the stream's own or another's. */
function rowsOf({ extents, pack }: Written): string[] {
  return Array.from({ length: extents.count }, (_, i) => {
    const name = extents.packAt(i) === pack ? 'own' : 'other';
    return `${extents.startAt(i)}: ${name}+${extents.offsetAt(i)}`;
  });
}

/** Which contents the index of the stream's pack knows; each is found with its bytes. */
async function notedIn(paths: StorePaths, pack: PackId, contents: readonly Buffer[]): Promise<boolean[]> {
  await sealPack(paths, pack);
  const request = {
    digests: Buffer.concat(contents.map(sha256)),
    sizeBytes: Float64Array.from(contents, ({ length }) => length),
  };
  const answer = lookUp(paths, { digests: [request], blobs: [] });
  const places = answer.found[0]!;
  return contents.map((content, i) => {
    const row = places.pack[i]!;
    if (row < 0) return false;
    const run = new ExtentList();
    run.push(answer.packs[row]!, places.offset[i]!, content.length);
    assert.equal(digestOf(readExtents(paths.root, run)), digestOf(content));
    return answer.packs[row] === pack;
  });
}

test('cached contents are not written again, whatever the blocks of the tar', async (t) => {
  const [one, two, most] = [noise(1, 5000), noise(2, 300_000), noise(3, MIB)];
  const [newOne, newTwo] = [noise(4, 6000), noise(5, 200_000)];
  const { paths, offsets } = await storeWith(t, [one, two, most]);
  const cached = listCachedContents(paths);
  const tar = tarOf({ one, newOne, two, most, newTwo, again: one });
  const places = [
    { at: tar.indexOf(one), content: one, offset: offsets[0]! },
    { at: tar.indexOf(two), content: two, offset: offsets[1]! },
    { at: tar.indexOf(most), content: most, offset: offsets[2]! },
    { at: tar.lastIndexOf(one), content: one, offset: offsets[0]! },
  ];
  const expected = ['0: own+0'];
  let sharedBytes = 0;
  for (const { at, content, offset } of places) {
    const end = at + content.length;
    sharedBytes += content.length;
    expected.push(`${at}: other+${offset}`, `${end}: own+${end - sharedBytes}`);
  }
  for (const blockBytes of [MIB, 512 * 1024, 100_003, 4096]) {
    const written = write(paths, tar, cached, blockBytes);
    assert.deepEqual(rowsOf(written), expected);
    assert.equal(written.writtenBytes, tar.length - sharedBytes);
    assert.equal(statSync(packPath(paths, written.pack!)).size, tar.length - sharedBytes);
    const noted = await notedIn(paths, written.pack!, [one, two, most, newOne, newTwo]);
    assert.deepEqual(noted, [false, false, false, true, true]);
    await removePack(paths, written.pack!);
  }
});

test('of a content above 1 MiB, the bytes that a cached one of its size begins with are not written', async (t) => {
  const large = noise(1, 2 * MIB + 7);
  const changed = Buffer.from(large);
  changed[MIB + 100]! ^= 1;
  const { paths, offsets } = await storeWith(t, [Buffer.alloc(large.length), large]);
  const tar = tarOf({ large, changed });
  const written = write(paths, tar, listCachedContents(paths));
  const at = tar.indexOf(changed);
  const shared = Math.floor((MIB + 100 + at) / MIB) * MIB - at;
  const end = 512 + large.length;
  assert.deepEqual(rowsOf(written), [
    '0: own+0',
    `512: other+${offsets[1]}`,
    `${end}: own+512`,
    `${at}: other+${offsets[1]}`,
    `${at + shared}: own+${at - large.length}`,
  ]);
  // The index has no contents that are not one run.
  assert.deepEqual(await notedIn(paths, written.pack!, [large, changed]), [false, false]);
});

test('a layer of cached contents writes headers only, and one without them is one run', async (t) => {
  const { paths } = await storeWith(t, [noise(1, 50_000)]);
  const cached = listCachedContents(paths);
  assert.equal(write(paths, tarOf({ it: noise(1, 50_000) }), cached).writtenBytes, 512 + 176 + 1024);
  const other = tarOf({ it: noise(2, 50_000), that: noise(3, MIB + 1) });
  assert.deepEqual(rowsOf(write(paths, other, cached, 100_003)), ['0: own+0']);
});

test('contents that differ from their digest in the index are written, and marked in the other pack', async (t) => {
  const [content, good] = [noise(1, 200_000), noise(2, 5000)];
  const { paths, id } = await storeWith(t, [content, good]);
  const tar = tarOf({ content });
  const cached = listCachedContents(paths);
  flipByte(packPath(paths, id), 199_999);
  assert.deepEqual(rowsOf(write(paths, tar, cached, MIB)), ['0: own+0']);
  const written = write(paths, tar, cached, 4096);
  assert.deepEqual(rowsOf(written), ['0: own+0']);
  assert.deepEqual(readBadRuns(paths, id), Float64Array.of(0, 200_000));
  assert.deepEqual(await notedIn(paths, written.pack!, [content, good]), [true, false]);
});

test('a content whose digest has the same start is not used', async (t) => {
  const content = noise(1, 5000);
  const { paths, id } = await storeWith(t, [noise(2, 5000), noise(3, 5000)]);
  const cached = listCachedContents(paths);
  new CachedContents(cached).add(sha256(content), 0, content.length, 0, 5000);
  assert.equal([...new CachedContents(cached).locations(content.length, sha256(content))].length, 1);
  assert.deepEqual(rowsOf(write(paths, tarOf({ content }), cached)), ['0: own+0']);
  assert.equal(readBadRuns(paths, id).length, 0, 'it is what its own index says');
});

test('a pack that is missing or truncated has no contents', async (t) => {
  const content = noise(1, 100_000);
  const { paths, id } = await storeWith(t, [content]);
  const cached = listCachedContents(paths);
  truncateSync(packPath(paths, id), 99_999);
  assert.deepEqual(rowsOf(write(paths, tarOf({ content }), cached)), ['0: own+0']);
  await removePack(paths, id);
  assert.deepEqual(rowsOf(write(paths, tarOf({ content }), cached)), ['0: own+0']);
});

test('a pack that cannot be read has no contents, and the layer is written', async (t) => {
  const content = noise(1, 100_000);
  const { paths, id } = await storeWith(t, [content]);
  const cached = listCachedContents(paths);
  rmSync(packPath(paths, id));
  mkdirSync(packPath(paths, id));
  assert.deepEqual(rowsOf(write(paths, tarOf({ content }), cached)), ['0: own+0']);
});

test('bytes that wait for the end of a content are written at the end of the tar', async (t) => {
  const content = noise(1, 500_000);
  const { paths } = await storeWith(t, [content]);
  const cut = tarOf({ content }).subarray(0, 400_000);
  for (const blockBytes of [MIB, 100_000])
    assert.deepEqual(rowsOf(write(paths, cut, listCachedContents(paths), blockBytes)), ['0: own+0']);
});

test('any tar is written unchanged, and its recorded contents are in the pack', async (t) => {
  for (let seed = 1; seed <= 6; seed++) {
    const random = seededRandom(seed);
    const known = randomFiles(random);
    const { paths } = await storeWith(
      t,
      known.filter(() => random.chance(0.5)),
    );
    const files = [...known, ...randomFiles(random)].map((bytes, i) => [`file-${i}`, bytes]);
    const tar = Buffer.concat([randomEntries(random), tarOf(Object.fromEntries(files))]);
    const written = write(paths, tar, listCachedContents(paths), random.int(3000, MIB));
    if (written.pack !== null) await notedIn(paths, written.pack, known);
    const nothing = write(paths, tar, noCachedContents(), random.int(3000, MIB));
    assert.deepEqual([rowsOf(nothing), nothing.writtenBytes], [['0: own+0'], tar.length]);
  }
});

/** A few contents, among them zeros and one that is large. */
function randomFiles(random: Random): Buffer[] {
  return Array.from({ length: 8 }, (_, i) => {
    const sizeBytes = random.int(1, i === 0 ? MIB + MIB / 2 : 30_000);
    return random.chance(0.2) ? Buffer.alloc(sizeBytes) : noise(random.int(1, 1e6), sizeBytes);
  });
}

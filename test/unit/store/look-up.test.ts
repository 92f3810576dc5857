import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import {
  appendFileSync,
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { test } from 'node:test';
import { digestOfBytes } from '../../../src/format/digest.js';
import { type LookUpAnswer, lookUp, type RequestedDigests } from '../../../src/store/look-up.js';
import { markBad, sealPack } from '../../../src/store/pack-files.js';
import { encodeContent, RECORD_BYTES } from '../../../src/store/pack-index.js';
import { PackWriter } from '../../../src/store/pack-writer.js';
import { indexPath, newPackId, type PackId, packPath, type StorePaths } from '../../../src/store/paths.js';
import { digestOf, freshStore, pieceOf, randomBytes, seededRandom, sha256, writePack } from './support.js';

function wanted(contents: Uint8Array[], sizes?: number[]): RequestedDigests {
  return {
    digests: Buffer.concat(contents.map(sha256)),
    sizeBytes: Float64Array.from(sizes ?? contents.map(({ length }) => length)),
  };
}

/** For each wanted content where it was found, as `pack:offset`. */
function places(answer: LookUpAnswer, group = 0): (string | undefined)[] {
  const { pack, offset } = answer.found[group]!;
  return Array.from(pack, (row, i) => (row < 0 ? undefined : `${answer.packs[row]!}:${offset[i]!}`));
}

function find(paths: StorePaths, ...contents: Uint8Array[]): (string | undefined)[] {
  return places(lookUp(paths, { digests: [wanted(contents)], blobs: [] }));
}

function changeByte(path: string, at: number): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.from([readFileSync(path)[at]! ^ 1]), 0, 1, at);
  closeSync(fd);
}

const A = Buffer.from('content A');
const B = Buffer.from('the content B');
const C = Buffer.from('C');

test('an empty store has nothing', (t) => {
  const paths = freshStore(t);
  const answer = lookUp(paths, { digests: [wanted([A])], blobs: [{ digest: digestOf('blob'), raw: false }] });
  assert.deepEqual(places(answer), [undefined]);
  assert.equal(answer.resumed.count, 0);
  assert.deepEqual(answer.packs, []);
  assert.deepEqual(lookUp(paths, { digests: [], blobs: [] }).found, []);
});

test('contents and pieces of sealed and unsealed packs are found', async (t) => {
  const paths = freshStore(t);
  const sealed = writePack(paths, [A, C]);
  await sealPack(paths, sealed.id);
  const unsealed = writePack(paths, [C, B]);
  assert.deepEqual(find(paths, B, A, Buffer.from('absent'), C), [
    `${unsealed.id}:1`,
    `${sealed.id}:0`,
    undefined,
    `${sealed.id}:${A.length}`,
  ]);
});

test('a computed digest is preferred to a stated one, in any order of packs', async (t) => {
  const paths = freshStore(t);
  const lie = writePack(paths, [B], {}, [B]);
  assert.deepEqual(find(paths, B), [`${lie.id}:0`]);
  const computed = writePack(paths, [C, B]);
  assert.deepEqual(find(paths, B), [`${computed.id}:1`]);
  await sealPack(paths, lie.id);
  assert.deepEqual(find(paths, B), [`${computed.id}:1`], 'also where it is not sealed');
  await sealPack(paths, computed.id);
  for (let i = 0; i < 5; i++) await sealPack(paths, writePack(paths, [B], {}, [B]).id);
  assert.deepEqual(find(paths, B), [`${computed.id}:1`]);
  changeByte(packPath(paths, writePack(paths, [A]).id), 0);
  const stated = writePack(paths, [A], {}, [A]);
  assert.deepEqual(find(paths, A), [`${stated.id}:0`], 'but not where its bytes have rotted');
});

test('among 200,000 contents of 100 packs the requested ones are found, in a fifth of the memory for 1,000,000', async (t) => {
  const paths = freshStore(t);
  const rows = 2000;
  const index = Buffer.alloc(rows * RECORD_BYTES);
  for (let i = 0; i < 99; i++) {
    const id = newPackId();
    const digests = randomFillSync(Buffer.alloc(rows * 32));
    for (let row = 0; row < rows; row++)
      encodeContent(index, row * RECORD_BYTES, digests, row, row * 500, 500);
    writeFileSync(packPath(paths, id), '');
    truncateSync(packPath(paths, id), rows * 500);
    writeFileSync(indexPath(paths, id, true), index);
  }
  const contents = Array.from({ length: rows }, (_, i) => Buffer.from(`wanted ${i}`));
  const { id, offsets } = writePack(paths, contents);
  await sealPack(paths, id);
  const request = { digests: [wanted(contents)], blobs: [] };
  const before = process.memoryUsage().rss;
  const answer = lookUp(paths, request);
  const addedBytes = process.memoryUsage().rss - before;
  assert.deepEqual(
    places(answer),
    offsets.map((offset) => `${id}:${offset}`),
  );
  assert.ok(addedBytes < 20e6, `${addedBytes}`);
});

test('equal digests within and across groups get the same answer', (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [A, B]);
  const answer = lookUp(paths, { digests: [wanted([A, B, A]), wanted([]), wanted([B, A])], blobs: [] });
  assert.deepEqual(places(answer, 0), [`${id}:0`, `${id}:${A.length}`, `${id}:0`]);
  assert.deepEqual(places(answer, 1), []);
  assert.deepEqual(places(answer, 2), [`${id}:${A.length}`, `${id}:0`]);
  assert.deepEqual(answer.packs, [id]);
});

test('a run of another length is not the content', (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [A]);
  const answer = lookUp(paths, { digests: [wanted([A, A], [A.length + 1, A.length])], blobs: [] });
  assert.deepEqual(places(answer), [undefined, `${id}:0`]);
});

test('of an unsealed pack only bytes with a right crc32 are trusted', (t) => {
  const paths = freshStore(t);
  const bad = writePack(paths, [A, B]);
  changeByte(packPath(paths, bad.id), 0);
  assert.deepEqual(find(paths, B), [undefined], 'the piece is false as a whole');
  const good = writePack(paths, [B]);
  assert.deepEqual(find(paths, A, B), [undefined, `${good.id}:0`]);
});

test('a sealed pack is trusted without reading it', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [A]);
  await sealPack(paths, id);
  changeByte(packPath(paths, id), 0);
  assert.deepEqual(find(paths, A), [`${id}:0`]);
});

test('a content that crosses pieces of an unsealed pack needs all of them', (t) => {
  const paths = freshStore(t);
  for (const [missing, expected] of [
    [-1, true],
    [0, false],
    [1, false],
    [2, false],
  ] as const) {
    const writer = new PackWriter(paths);
    const bytes = randomBytes(seededRandom(missing + 9), 30);
    const region = writer.reserve(30);
    const run = { digest: sha256(bytes.subarray(5, 25)), packOffset: 5, lengthBytes: 20 };
    for (const [i, start] of [0, 10, 20].entries()) {
      const part = bytes.subarray(start, start + 10);
      if (i === missing) writer.writeUnindexed(region, part, start);
      else writer.writePiece(region, pieceOf(part, start, i === 2 ? [run] : []));
    }
    if (missing === 2) writer.writePiece(region, pieceOf(bytes.subarray(25), 25, [run]));
    writer.close();
    assert.equal(
      find(paths, bytes.subarray(5, 25))[0],
      expected ? `${region.pack}:5` : undefined,
      `without ${missing}`,
    );
  }
});

test('runs beyond the end of a pack, in bad runs or in a missing pack do not exist', async (t) => {
  const paths = freshStore(t);
  const packs = [writePack(paths, [A, B]), writePack(paths, [A, B])];
  await sealPack(paths, packs[0]!.id);
  for (const { id } of packs) {
    truncateSync(packPath(paths, id), A.length + B.length - 1);
  }
  assert.deepEqual(find(paths, A, B), [`${packs[0]!.id}:0`, undefined]);
  markBad(paths, packs[0]!.id, [{ offset: A.length - 1, lengthBytes: 1 }]);
  assert.deepEqual(find(paths, A), [undefined]);
  const whole = writePack(paths, [A]);
  assert.deepEqual(find(paths, A), [`${whole.id}:0`]);
  await sealPack(paths, whole.id);
  unlinkSync(packPath(paths, whole.id));
  assert.deepEqual(find(paths, A), [undefined]);
});

test('a torn or damaged index loses only the records concerned', async (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [A, B, C]);
  await sealPack(paths, id);
  const index = indexPath(paths, id, true);
  changeByte(index, 2 * 80 + 50);
  assert.deepEqual(find(paths, A, B, C), [`${id}:0`, undefined, `${id}:${A.length + B.length}`]);
  truncateSync(index, 4 * 80 - 1);
  assert.deepEqual(find(paths, A, C), [`${id}:0`, undefined]);
  appendFileSync(index, Buffer.alloc(1000));
  assert.deepEqual(find(paths, A), [`${id}:0`]);
});

test('files that are not indexes are left alone', (t) => {
  const paths = freshStore(t);
  const { id } = writePack(paths, [A]);
  for (const name of ['x.idx', `${id.toUpperCase()}g.idx`, '.idx.open'])
    writeFileSync(`${paths.packs}/${name}`, 'x'.repeat(80));
  assert.deepEqual(find(paths, A), [`${id}:0`]);
});

test('random stores are answered like a Map would', async (t) => {
  const paths = freshStore(t);
  const random = seededRandom(42);
  const pool = Array.from({ length: 400 }, (_, i) => randomBytes(random, 1 + ((i * 7) % 60)));
  const model = new Map<string, Set<string>>();
  for (let pack = 0; pack < 12; pack++) {
    const contents = Array.from({ length: 40 }, () => pool[Math.floor(random() * 300)]!);
    const { id, offsets } = writePack(paths, contents);
    if (random() < 0.5) await sealPack(paths, id);
    const spoiled = !existsSync(indexPath(paths, id, true)) && random() < 0.4;
    if (spoiled) changeByte(packPath(paths, id), 3);
    const badAt = random() < 0.5 ? offsets[20]! : -1;
    if (badAt >= 0) markBad(paths, id, [{ offset: badAt, lengthBytes: 1 }]);
    contents.forEach((content, i) => {
      if (spoiled || (offsets[i]! <= badAt && badAt < offsets[i]! + content.length)) return;
      const key = content.toString('hex');
      model.set(key, (model.get(key) ?? new Set()).add(`${id}:${offsets[i]!}`));
    });
  }
  const answers = find(paths, ...pool);
  pool.forEach((content, i) => {
    const known = model.get(content.toString('hex'));
    if (known === undefined) assert.equal(answers[i], undefined);
    else assert.ok(answers[i] !== undefined && known.has(answers[i]), `content ${i} at ${answers[i]}`);
  });
  assert.ok(answers.filter((answer) => answer !== undefined).length > 100);
});

interface Fetched {
  readonly start: number;
  readonly length: number;
}

/** A pack with one piece for each range of the blob `name`. */
function writeBroken(paths: StorePaths, name: string, ranges: Fetched[], raw = false): PackId {
  const writer = new PackWriter(paths);
  const region = writer.reserve(10_000);
  let at = 0;
  for (const { start, length } of ranges) {
    const bytes = Buffer.alloc(raw ? length : length * 2, start);
    const range = {
      blobDigest: sha256(name),
      blobStart: start,
      blobLength: length,
      tarStart: raw ? 0 : start * 2,
      raw,
    };
    writer.writePiece(region, pieceOf(bytes, at, [], range));
    at += bytes.length;
  }
  writer.close();
  return region.pack;
}

function resume(paths: StorePaths, ...blobs: [string, boolean][]) {
  const { resumed, packs } = lookUp(paths, {
    digests: [],
    blobs: blobs.map(([name, raw]) => ({ digest: digestOfBytes(sha256(name)), raw })),
  });
  return Array.from({ length: resumed.count }, (_, i) => ({
    blob: resumed.blob[i],
    range: [resumed.blobStart[i], resumed.blobLength[i]],
    tar: [resumed.tarStart[i], resumed.lengthBytes[i]],
    at: `${packs[resumed.pack[i]!]!}:${resumed.packOffset[i]!}`,
  }));
}

test('pieces of several blobs are chosen independently', (t) => {
  const paths = freshStore(t);
  const one = writeBroken(paths, 'x', [{ start: 50, length: 50 }]);
  const two = writeBroken(paths, 'y', [
    { start: 0, length: 10 },
    { start: 60, length: 10 },
  ]);
  assert.deepEqual(
    resume(paths, ['x', false], ['y', false]).map(({ blob, range, at }) => [blob, ...range, at]),
    [
      [0, 50, 50, `${one}:0`],
      [1, 0, 10, `${two}:0`],
      [1, 60, 10, `${two}:20`],
    ],
  );
});

test('pieces of an interrupted blob are found in order, in all packs', async (t) => {
  const paths = freshStore(t);
  const one = writeBroken(paths, 'x', [
    { start: 50, length: 5 },
    { start: 10, length: 5 },
  ]);
  const two = writeBroken(paths, 'x', [{ start: 15, length: 20 }]);
  writeBroken(paths, 'other', [{ start: 0, length: 5 }]);
  await sealPack(paths, two);
  assert.deepEqual(resume(paths, ['y', false], ['x', false]), [
    { blob: 1, range: [10, 5], tar: [20, 10], at: `${one}:10` },
    { blob: 1, range: [15, 20], tar: [30, 40], at: `${two}:0` },
    { blob: 1, range: [50, 5], tar: [100, 10], at: `${one}:0` },
  ]);
});

test('raw and decoded pieces are not confused', (t) => {
  const paths = freshStore(t);
  const decoded = writeBroken(paths, 'x', [{ start: 0, length: 5 }]);
  const raw = writeBroken(paths, 'x', [{ start: 5, length: 5 }], true);
  assert.deepEqual(
    resume(paths, ['x', false]).map(({ at }) => at),
    [`${decoded}:0`],
  );
  assert.deepEqual(resume(paths, ['x', true]), [{ blob: 0, range: [5, 5], tar: [0, 5], at: `${raw}:0` }]);
});

test('of overlapping pieces one is chosen: sealed before unsealed, long before short', async (t) => {
  const paths = freshStore(t);
  const unsealed = writeBroken(paths, 'x', [
    { start: 0, length: 30 },
    { start: 100, length: 10 },
  ]);
  const sealed = writeBroken(paths, 'x', [
    { start: 0, length: 10 },
    { start: 5, length: 10 },
    { start: 105, length: 10 },
  ]);
  const long = writeBroken(paths, 'x', [{ start: 100, length: 20 }]);
  await sealPack(paths, sealed);
  assert.deepEqual(
    resume(paths, ['x', false]).map(({ range, at }) => [...range, at]),
    [
      [0, 10, `${sealed}:0`],
      [100, 20, `${long}:0`],
    ],
  );
  assert.ok(unsealed);
});

test('a raw piece is trimmed to the bytes that earlier pieces do not have', (t) => {
  const paths = freshStore(t);
  const part = writeBroken(paths, 'x', [{ start: 0, length: 7 }], true);
  const ranges = [0, 5, 10].map((start) => ({ start, length: 5 }));
  const whole = writeBroken(paths, 'x', ranges, true);
  assert.deepEqual(
    resume(paths, ['x', true]).map(({ range, tar, at }) => [...range, tar[1], at]),
    [
      [0, 7, 7, `${part}:0`],
      [7, 3, 3, `${whole}:7`],
      [10, 5, 5, `${whole}:10`],
    ],
  );
});

test('a corrupt piece is replaced by an intact one', (t) => {
  const paths = freshStore(t);
  const spoiled = writeBroken(paths, 'x', [{ start: 0, length: 30 }]);
  const good = writeBroken(paths, 'x', [{ start: 0, length: 10 }]);
  const cut = writeBroken(paths, 'x', [{ start: 50, length: 30 }]);
  const bad = writeBroken(paths, 'x', [{ start: 80, length: 30 }]);
  changeByte(packPath(paths, spoiled), 7);
  truncateSync(packPath(paths, cut), 59);
  markBad(paths, bad, [{ offset: 3, lengthBytes: 1 }]);
  assert.deepEqual(
    resume(paths, ['x', false]).map(({ range, at }) => [...range, at]),
    [[0, 10, `${good}:0`]],
  );
});

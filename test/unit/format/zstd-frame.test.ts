import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compress, decompress } from '@mongodb-js/zstd';
import { buildLayerTable } from '../../../src/format/layer-table-builder.js';
import { FrameWalker, MAX_BLOCK_BYTES } from '../../../src/format/zstd-frame.js';
import { readLayers, seededRandom, throwsError } from './fixture.js';

const MAGIC = [0x28, 0xb5, 0x2f, 0xfd];
/** A block header (RFC 8878, section 3.1.1.2): last flag, type, size. */
const block = (last: boolean, type: number, size: number) => {
  const header = (last ? 1 : 0) | (type << 1) | (size << 3);
  return [header & 0xff, (header >> 8) & 0xff, header >> 16];
};
const raw = (bytes: number, last = true) => [...block(last, 0, bytes), ...new Array<number>(bytes).fill(7)];

function walk(bytes: Uint8Array | number[], base = 0): FrameWalker {
  const buffer = Uint8Array.from(bytes);
  const walker = new FrameWalker(base);
  walker.advance(buffer, buffer.length);
  return walker;
}

function frames(walker: FrameWalker): [number, number][] {
  return Array.from({ length: walker.frameCount }, (_, i) => [walker.frameEnd(i), walker.boundUpTo(i)]);
}

test('the frames of a fixture end where its TOC says and decode to no more than their bounds', async () => {
  for (const { blob, toc, tarSplit, positions } of await readLayers()) {
    const table = buildLayerTable({ toc, tarSplit, tocStart: positions.toc.start - 8 });
    const walker = walk(blob);
    assert.equal(walker.completeBytes, blob.length);
    assert.equal(walker.needBytes, 0);
    const ends = new Set(frames(walker).map(([end]) => end));
    for (let i = 0; i < table.count; i++) {
      assert.ok(table.blobStart[i] === 0 || ends.has(table.blobStart[i]!));
      assert.ok(ends.has(table.blobEnd[i]!));
    }
    assert.ok(ends.has(table.dataEnd));
    let start = 0;
    let before = 0;
    for (const [end, bound] of frames(walker)) {
      if (start < table.dataEnd) {
        const decoded = await decompress(blob.subarray(start, end));
        assert.ok(decoded.length <= bound - before, `${decoded.length} bytes, bound ${bound - before}`);
      } else {
        assert.equal(bound, before);
      }
      start = end;
      before = bound;
    }
  }
});

test('bytes that arrive in chunks of any size make the same frames as all at once', async () => {
  const random = seededRandom(3);
  for (const { blob } of await readLayers()) {
    const expected = frames(walk(blob));
    for (let round = 0; round < 20; round++) {
      const walker = new FrameWalker();
      const largest = 2 ** (1 + Math.floor(random() * 16));
      const seen: [number, number][] = [];
      let cutBytes = 0;
      let cutBound = 0;
      for (let length = 0; length < blob.length; ) {
        length = Math.min(blob.length, length + 1 + Math.floor(random() * largest));
        walker.advance(blob.subarray(cutBytes), length - cutBytes);
        if (random() < 0.5 || walker.frameCount === 0) continue;
        const taken = Math.floor(random() * walker.frameCount) + 1;
        const part = frames(walker).slice(0, taken);
        seen.push(...part.map(([end, bound]): [number, number] => [end + cutBytes, bound + cutBound]));
        const [end, bound] = part[taken - 1] ?? [0, 0];
        walker.cut(end);
        cutBytes += end;
        cutBound += bound;
      }
      seen.push(
        ...frames(walker).map(([end, bound]): [number, number] => [end + cutBytes, bound + cutBound]),
      );
      assert.deepEqual(seen, expected);
    }
  }
});

test('bytes one at a time are never too few to go on from, and needBytes never asks for too many', async () => {
  const frame = await compress(Buffer.alloc(300_000, 'some text, '));
  const bytes = Buffer.concat([frame, Buffer.from([...MAGIC, 0x20, 4, ...raw(4)])]);
  const walker = new FrameWalker();
  for (let length = 1; length <= bytes.length; length++) {
    walker.advance(bytes, length);
    const end = length < frame.length ? frame.length : bytes.length;
    assert.ok(walker.needBytes <= end - length, `${walker.needBytes} of ${end - length} at ${length}`);
    assert.equal(walker.needBytes === 0, length === frame.length || length === bytes.length);
  }
  assert.deepEqual(
    frames(walker).map(([end]) => end),
    [frame.length, bytes.length],
  );
});

test('raw and RLE blocks are bound by their own size, compressed ones by the largest block', () => {
  const window64k = 6 << 3;
  const header = [...MAGIC, 0, window64k];
  assert.deepEqual(frames(walk([...header, ...raw(10)])), [[header.length + 13, 10]]);
  assert.deepEqual(frames(walk([...header, ...block(true, 1, 60_000), 9])), [[header.length + 4, 60_000]]);
  assert.deepEqual(frames(walk([...header, ...block(true, 2, 2), 9, 9])), [[header.length + 5, 65_536]]);
  const window1m = 10 << 3;
  const two = [...MAGIC, 0, window1m, ...block(false, 2, 1), 9, ...block(true, 2, 1), 9];
  assert.deepEqual(frames(walk(two)), [[two.length, 2 * MAX_BLOCK_BYTES]]);
});

test('a stated content size alone is not believed: blocks count', () => {
  // Says 5 bytes in one segment, has ten blocks of five.
  const lying = [...MAGIC, 0x20, 5, ...Array.from({ length: 9 }, () => raw(5, false)).flat(), ...raw(5)];
  assert.deepEqual(frames(walk(lying)), [[lying.length, 50]]);
});

test('the bound of a frame in progress grows with its blocks and its end is the last whole frame', () => {
  const whole = [...MAGIC, 0x20, 4, ...raw(4)];
  const open = [...MAGIC, 0, 10 << 3, ...raw(100, false), ...block(false, 1, 50), 1];
  const walker = walk([...whole, ...open]);
  assert.equal(walker.frameCount, 1);
  assert.equal(walker.completeBytes, whole.length);
  assert.equal(walker.openFrameBound, 150);
  assert.equal(walker.needBytes, 3);
});

test('every form of a frame header is measured right', () => {
  for (const contentFlag of [0, 1, 2, 3]) {
    for (const single of [0, 1]) {
      for (const dictionaryFlag of [0, 1, 2, 3]) {
        for (const checksum of [0, 1]) {
          const descriptor = (contentFlag << 6) | (single << 5) | (checksum << 2) | dictionaryFlag;
          const dictionary = new Array<number>([0, 1, 2, 4][dictionaryFlag] ?? 0).fill(0);
          const content = new Array<number>(contentFlag === 0 ? single : 2 ** contentFlag).fill(0);
          if (content.length > 0) content[0] = 200;
          const header = [...MAGIC, descriptor, ...(single ? [] : [80]), ...dictionary, ...content];
          const frame = [...header, ...raw(100), ...new Array<number>(checksum * 4).fill(1)];
          assert.deepEqual(frames(walk([...frame, ...frame])), [
            [frame.length, 100],
            [2 * frame.length, 200],
          ]);
        }
      }
    }
  }
});

test('skippable frames of all sixteen kinds decode to nothing', () => {
  for (let kind = 0; kind < 16; kind++) {
    const walker = walk([0x50 + kind, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    assert.deepEqual(frames(walker), [[11, 0]]);
  }
  const cut = walk([0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 1]);
  assert.equal(cut.frameCount, 0);
  assert.equal(cut.needBytes, 0xffffffff - 1);
});

const bad: [string, number[], RegExp][] = [
  ['another magic number', [0x1f, 0x8b, 8, 0], /At byte 1000 of the blob no zstd frame begins/],
  [
    'a bad second frame',
    [...MAGIC, 0x20, 4, ...raw(4), 0, 0, 0, 0],
    /At byte 1013 of the blob no zstd frame/,
  ],
  ['the reserved bit', [...MAGIC, 0x28, 4], /At byte 1000 of the blob the reserved bit/],
  ['a dictionary', [...MAGIC, 0x21, 1, 4], /At byte 1000 of the blob a zstd frame needs a dictionary/],
  ['a dictionary of four bytes', [...MAGIC, 0x23, 0, 0, 0, 1, 4], /needs a dictionary/],
  ['the reserved block type', [...MAGIC, 0x20, 4, ...block(true, 3, 0)], /At byte 1006 .* the reserved type/],
  [
    'a block above its window',
    [...MAGIC, 0, 0, ...block(true, 0, 1025)],
    /1025 bytes long, above its frame's 1024/,
  ],
  [
    'a block above 128 KiB',
    [...MAGIC, 0, 80, ...block(true, 1, MAX_BLOCK_BYTES + 1)],
    /is 131073 bytes long/,
  ],
];

for (const [what, bytes, message] of bad) {
  test(`a frame with ${what} is malformed`, () => {
    throwsError(() => walk(bytes, 1000), 'metadata-malformed', message);
  });
}

test('errors name the byte of the blob after the owner has cut frames away', () => {
  const frame = [...MAGIC, 0x20, 4, ...raw(4)];
  const walker = walk(frame, 1000);
  walker.cut(frame.length);
  const message = /At byte 1013 of the blob no zstd frame begins/;
  throwsError(() => walker.advance(Uint8Array.of(1, 2, 3, 4), 4), 'metadata-malformed', message);
});

test('windows up to 128 MiB are supported and no larger ones', () => {
  const windowLog27 = 17 << 3;
  assert.equal(walk([...MAGIC, 0, windowLog27, ...raw(1)]).frameCount, 1);
  throwsError(
    () => walk([...MAGIC, 0, windowLog27 + 1, ...raw(1)]),
    'unsupported',
    /a window of 150994944 bytes/,
  );
  const single = [...MAGIC, 0xe0, 1, 0, 0, 8, 0, 0, 0, 0];
  throwsError(() => walk(single, 7), 'unsupported', /frame at byte 7 needs a window of 134217729 bytes/);
});

test('a cut that is no end of a frame is an internal error', () => {
  const walker = walk([...MAGIC, 0x20, 4, ...raw(4)]);
  throwsError(() => walker.cut(5), 'internal', /No zstd frame ends at byte 5/);
  throwsError(() => walker.cut(14), 'internal', /No zstd frame ends at byte 14/);
  walker.cut(13);
  assert.equal(walker.frameCount, 0);
  assert.equal(walker.completeBytes, 0);
});

test('an empty frame, which writers leave between chunks, has bound 0', () => {
  const walker = walk([...MAGIC, 0x04, 0x00, 1, 0, 0, 0x99, 0xe9, 0xd8, 0x51]);
  assert.deepEqual(frames(walker), [[13, 0]]);
});

test('the length of the open frame is known as far as it is stated, whatever was cut off before it', () => {
  const frame = [...MAGIC, 0x20, 5, ...raw(5)];
  const open = [...MAGIC, 0x20, 50, ...block(true, 0, 50), 1, 2];
  const buffer = Uint8Array.from([...frame, ...open]);
  const walker = new FrameWalker();
  walker.advance(buffer, frame.length);
  assert.equal(walker.openFrameBytes, 0);
  walker.advance(buffer, frame.length + 1);
  assert.equal(walker.openFrameBytes, 4);
  walker.advance(buffer, buffer.length);
  assert.equal(walker.openFrameBytes, 6 + 3 + 50);
  walker.cut(frame.length);
  assert.equal(walker.openFrameBytes, 6 + 3 + 50);
});

test('a frame too long to be gathered is passed as far as its headers are read', () => {
  const header = [...MAGIC, 0, 0x38];
  const frame = [...header, ...raw(5, false), ...raw(7)];
  const next = [...MAGIC, 0, 0x38, ...raw(1)];
  const walker = new FrameWalker();
  let buffer: number[] = [];
  let passed = 0;
  for (const byte of frame) {
    buffer.push(byte);
    walker.advance(Uint8Array.from(buffer), buffer.length);
    if (walker.frameCount > 0) break;
    passed += walker.passableBytes;
    buffer = buffer.slice(walker.passableBytes);
    walker.pass(walker.passableBytes);
    // What stays is a header that is not whole.
    assert.ok(buffer.length < header.length);
  }
  assert.equal(walker.windowBytes, 2 ** 17);
  assert.equal(passed + walker.frameEnd(0), frame.length);
  assert.equal(walker.passableBytes, 0);
  assert.throws(() => walker.pass(1), { code: 'internal' });
  walker.cut(walker.frameEnd(0));
  walker.advance(Uint8Array.from(next), next.length);
  assert.deepEqual(frames(walker), [[next.length, 1]]);
  assert.equal(walker.blobAt, frame.length + next.length);
  walker.cut(next.length);
  const skipped = [0x50, 0x2a, 0x4d, 0x18, 100, 0, 0, 0, 1, 2, 3];
  walker.advance(Uint8Array.from(skipped), skipped.length);
  assert.deepEqual([walker.windowBytes, walker.passableBytes], [0, skipped.length]);
});

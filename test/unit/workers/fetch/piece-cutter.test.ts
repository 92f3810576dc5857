import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compress } from '@mongodb-js/zstd';
import { DECODE_CALL_BYTES } from '../../../../src/format/metadata-position.js';
import { FrameWalker } from '../../../../src/format/zstd-frame.js';
import { MemberWalker } from '../../../../workers/fetch/member-walker.js';
import {
  acquireBuffer,
  PieceCutter,
  releaseBuffer,
  statedTarAt,
} from '../../../../workers/fetch/piece-cutter.js';
import { tableOf } from '../../../support/layer-tables.js';
import { noise } from '../../../support/layout.js';

const NOTHING = tableOf([], 1e6, 1e6);
const MIB = 2 ** 20;

async function framesOf(...contents: Buffer[]): Promise<{ bytes: Buffer; ends: number[] }> {
  const frames = await Promise.all(contents.map((content) => compress(content, 3)));
  let end = 0;
  const ends = frames.map((frame) => {
    end += frame.length;
    return end;
  });
  return { bytes: Buffer.concat(frames), ends };
}

test('a piece ends at the first frame that makes it worth a decode call', async () => {
  const { bytes, ends } = await framesOf(noise(1, 400), noise(2, 400), noise(3, 400));
  const cutter = new PieceCutter(NOTHING, 0, 500);
  const walker = new FrameWalker();
  const pieces: number[] = [];
  for (let received = 1; received <= bytes.length; received++) {
    walker.advance(bytes, received);
    const piece = cutter.next(walker, 0, false);
    if (piece > 0) {
      pieces.push(received, piece);
      break;
    }
  }
  assert.deepEqual(pieces, [ends[1], ends[1]]);
});

test('with `all`, a piece has all complete frames', async () => {
  const { bytes, ends } = await framesOf(noise(1, 400), noise(2, 400), noise(3, 400));
  const walker = new FrameWalker();
  walker.advance(bytes, bytes.length - 1);
  const cutter = new PieceCutter(NOTHING, 0, MIB);
  assert.equal(cutter.next(walker, 0, false), 0);
  assert.equal(cutter.next(walker, 0, true), ends[1]);
  walker.cut(ends[1]!);
  assert.equal(cutter.next(walker, ends[1]!, true), 0);
});

test('a piece ends early when the metadata says that it decodes to a lot', async () => {
  const contents = [Buffer.alloc(700_000, 1), Buffer.alloc(700_000, 2), Buffer.alloc(700_000, 3)];
  const { bytes, ends } = await framesOf(...contents);
  const table = tableOf(
    contents.map((content, i) => ({
      name: i,
      blob: [i === 0 ? 0 : ends[i - 1]!, ends[i]!] as const,
      tarStart: i * 700_000,
      sizeBytes: content.length,
    })),
    bytes.length,
    2_100_000,
  );
  const walker = new FrameWalker();
  walker.advance(bytes, bytes.length);
  const cutter = new PieceCutter(table, 0, MIB);
  assert.equal(cutter.next(walker, 0, false), ends[1]);
  walker.cut(ends[1]!);
  assert.equal(cutter.next(walker, ends[1]!, false), 0);
  assert.equal(cutter.next(walker, ends[1]!, true), ends[2]! - ends[1]!);
});

test('no piece can decode to more than the limit of a call, whatever the metadata says', async () => {
  const { bytes, ends } = await framesOf(Buffer.alloc(20 * MIB), Buffer.alloc(20 * MIB));
  const walker = new FrameWalker();
  walker.advance(bytes, bytes.length);
  assert.ok(walker.boundUpTo(1) > DECODE_CALL_BYTES);
  assert.equal(new PieceCutter(NOTHING, 0, MIB).next(walker, 0, true), ends[0]);
});

test('a single frame that decodes to more than the limit of a call is unsupported', async () => {
  const { bytes } = await framesOf(Buffer.alloc(DECODE_CALL_BYTES + MIB));
  for (const received of [bytes.length, bytes.length - 10]) {
    const walker = new FrameWalker();
    walker.advance(bytes, received);
    assert.throws(() => new PieceCutter(NOTHING, 0, MIB).next(walker, 0, true), { code: 'unsupported' });
  }
});

test('the metadata states tar offsets for the starts and ends of contents only', () => {
  const table = tableOf(
    [
      { name: 'a', blob: [100, 300], tarStart: 512, sizeBytes: 20 },
      { name: 'b', blob: [310, 350], tarStart: 1536, sizeBytes: 5 },
    ],
    900,
    4096,
  );
  const stated = [99, 100, 101, 300, 305, 310, 350, 351].map((at) => statedTarAt(table, at));
  assert.deepEqual(stated, [undefined, 512, undefined, 532, undefined, 1536, 1541, undefined]);
});

/** Bytes of one frame, as many as asked for, without its end. */
type OpenFrame = (lengthBytes: number) => Buffer;

const skippable: OpenFrame = (lengthBytes) => {
  const frame = Buffer.alloc(lengthBytes);
  frame.writeUInt32LE(0x184d2a50, 0);
  frame.writeUInt32LE(150 * MIB, 4);
  return frame;
};

/** A frame header (no size, window 128 KiB), then raw blocks of no byte: three zeros each. */
const emptyBlocks: OpenFrame = (lengthBytes) => {
  const frame = Buffer.alloc(lengthBytes);
  Buffer.from('28b52ffd0038', 'hex').copy(frame);
  return frame;
};

/** How much of a frame can be received, in steps, before the cutter refuses it. */
function receivedWhenRefused(frame: Buffer, stepBytes: number): number {
  const walker = new FrameWalker();
  const cutter = new PieceCutter(NOTHING, 0, MIB);
  for (let received = stepBytes; received <= frame.length; received += stepBytes) {
    walker.advance(frame, received);
    try {
      assert.equal(cutter.next(walker, 0, false), 0);
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'unsupported');
      return received;
    }
  }
  throw new Error('it was not refused');
}

test('the message about a gzip member above the limit calls it a gzip member', () => {
  const row = { name: 0, blob: [0, MIB], tarStart: 512, sizeBytes: DECODE_CALL_BYTES + 1 } as const;
  const table = tableOf([row], MIB, 2 * DECODE_CALL_BYTES, { layout: 'shared-frames', compression: 'gzip' });
  const walker = new MemberWalker(table, 0, MIB);
  walker.advance(Buffer.alloc(0), MIB);
  assert.throws(() => new PieceCutter(table, 0, MIB).next(walker, 0, true), {
    code: 'unsupported',
    message: /^a gzip member could decode to more than 32 MiB/,
  });
});

test('a frame that states too large a size is unsupported as soon as its header is received', () => {
  assert.equal(receivedWhenRefused(skippable(100), 8), 8);
});

test('a frame without an end is unsupported before more than the limit of a call is received', () => {
  const received = receivedWhenRefused(emptyBlocks(DECODE_CALL_BYTES + 4 * MIB), MIB / 2);
  assert.ok(received > DECODE_CALL_BYTES && received <= DECODE_CALL_BYTES + 2 * MIB, `${received}`);
});

test('a frame that is too long is unsupported once the frames before it are cut off', async () => {
  const { bytes, ends } = await framesOf(noise(1, 400));
  const walker = new FrameWalker();
  const buffer = Buffer.concat([bytes, skippable(50)]);
  walker.advance(buffer, buffer.length);
  assert.throws(() => new PieceCutter(NOTHING, 0, MIB).next(walker, 0, false), { code: 'unsupported' });
  const cutter = new PieceCutter(NOTHING, 0, 100);
  assert.equal(cutter.next(walker, 0, false), ends[0]);
  walker.cut(ends[0]!);
  assert.throws(() => cutter.next(walker, ends[0]!, false), { code: 'unsupported' });
});

test('skippable frames within the limit are part of pieces like others', async () => {
  const { bytes } = await framesOf(noise(1, 400));
  const skipped = Buffer.alloc(20);
  skipped.writeUInt32LE(0x184d2a5f, 0);
  skipped.writeUInt32LE(12, 4);
  const buffer = Buffer.concat([skipped, bytes]);
  const walker = new FrameWalker();
  walker.advance(buffer, buffer.length);
  assert.equal(new PieceCutter(NOTHING, 0, MIB).next(walker, 0, true), buffer.length);
});

/** Three contents with gaps in frames of their own, each of `frames` frames of 400 bytes of noise. */
async function apartLayer(frames: number) {
  const { bytes, ends } = await framesOf(...Array.from({ length: 6 * frames }, (_, i) => noise(i + 1, 400)));
  // Frames [0, n) are a gap, [n, 2n) a content, and so on.
  const at = (frame: number) => (frame === 0 ? 0 : ends[frame - 1]!);
  const rows = [0, 1, 2].map((i) => ({
    name: i,
    blob: [at((2 * i + 1) * frames), at((2 * i + 2) * frames)] as const,
    tarStart: 50_000 * (i + 1),
    sizeBytes: 400 * frames,
  }));
  const table = tableOf(rows, bytes.length, 300_000, { layout: 'separate-frames' });
  const walker = new FrameWalker();
  walker.advance(bytes, bytes.length);
  return { table, walker, bytes, ends };
}

test('without tar-split, a piece ends with a content or gap although it could be longer', async () => {
  const { table, walker } = await apartLayer(3);
  const [first] = table.blobStart;
  // Worth a decode call after the fourth frame, the first of the content.
  const cutter = new PieceCutter(table, 0, first! + 10);
  assert.equal(cutter.next(walker, 0, false), first);
  const split = { ...table, layout: 'tar-split' as const };
  assert.ok(new PieceCutter(split, 0, first! + 10).next(walker, 0, false) > first!);
});

test('a piece in which no content or gap ends, ends with a frame', async () => {
  const { table, walker, ends } = await apartLayer(3);
  assert.equal(new PieceCutter(table, 0, 450).next(walker, 0, false), ends[1]);
});

test('a piece of the maximum length also ends with a content', async () => {
  const contents = [
    Buffer.alloc(14 * MIB),
    Buffer.alloc(14 * MIB, 1),
    Buffer.alloc(3 * MIB),
    Buffer.alloc(14 * MIB),
  ];
  const { bytes, ends } = await framesOf(...contents);
  const row = { name: 'a', blob: [0, ends[0]!] as const, tarStart: 0, sizeBytes: 14 * MIB };
  // Little is allotted, so that only the bound of the frames ends a piece.
  const table = tableOf([{ ...row, sizeBytes: 20 }], bytes.length, 1000, { layout: 'separate-frames' });
  const walker = new FrameWalker();
  walker.advance(bytes, bytes.length);
  assert.ok(walker.boundUpTo(2) <= DECODE_CALL_BYTES && walker.boundUpTo(3) > DECODE_CALL_BYTES);
  assert.equal(new PieceCutter(table, 0, 10 * MIB).next(walker, 0, false), ends[0]);
  const split = { ...table, layout: 'tar-split' as const };
  assert.equal(new PieceCutter(split, 0, 10 * MIB).next(walker, 0, false), ends[2]);
});

test('the pieces of a layer without tar-split tile it, and none is longer than necessary', async () => {
  for (const pieceBytes of [1, 500, 1300, 3000, MIB]) {
    const { table, walker, bytes, ends } = await apartLayer(2);
    const cutter = new PieceCutter(table, 0, pieceBytes);
    const edges = new Set([...table.blobStart, ...table.blobEnd, bytes.length]);
    let at = 0;
    for (let piece = cutter.next(walker, 0, true); piece > 0; piece = cutter.next(walker, at, true)) {
      const frames = ends.filter((end) => end > at && end <= at + piece);
      assert.equal(frames.at(-1), at + piece);
      const hasEdge = frames.some((end) => edges.has(end));
      if (hasEdge) assert.ok(edges.has(at + piece), `${pieceBytes}: ${at} to ${at + piece}`);
      walker.cut(piece);
      at += piece;
    }
    assert.equal(at, bytes.length);
  }
});

test('a span within a layer is cut like the layer', async () => {
  const { table, bytes } = await apartLayer(3);
  const [blobStart, blobEnd] = [table.blobStart[1]!, table.blobEnd[2]!];
  const walker = new FrameWalker(blobStart);
  const part = bytes.subarray(blobStart, blobEnd);
  walker.advance(part, part.length);
  const cutter = new PieceCutter(table, blobStart, table.blobEnd[1]! - blobStart + 10, blobEnd);
  assert.equal(cutter.next(walker, blobStart, false), table.blobEnd[1]! - blobStart);
});

// One test, as the free buffers are shared: the first one decides their size.
test('buffers of the common size are reused, and larger ones for lengths that fit', () => {
  const first = acquireBuffer(1000);
  assert.equal(first.length, 1000);
  releaseBuffer(first);
  const large = acquireBuffer(4.5 * MIB);
  assert.equal(large.length, 5 * MIB);
  releaseBuffer(large);
  assert.equal(acquireBuffer(900), first);
  // No other was free: this one is new, and has the common size.
  const next = acquireBuffer(10);
  assert.equal(next.length, 1000);
  assert.notEqual(next, first);
  assert.equal(acquireBuffer(6 * MIB).length, 6 * MIB);
  assert.equal(acquireBuffer(4.6 * MIB), large);
  assert.notEqual(acquireBuffer(4.6 * MIB), large);
});

test('up to 32 MiB of larger buffers are kept', () => {
  const given = Array.from({ length: 5 }, () => acquireBuffer(10 * MIB));
  for (const buffer of given) releaseBuffer(buffer);
  const again = Array.from({ length: 5 }, () => acquireBuffer(10 * MIB));
  assert.equal(again.filter((buffer) => given.includes(buffer)).length, 3);
});

test('the number of free buffers is limited', () => {
  const given = Array.from({ length: 200 }, () => acquireBuffer(1000));
  for (const buffer of given) releaseBuffer(buffer);
  const again = Array.from({ length: 200 }, () => acquireBuffer(1000));
  const reused = again.filter((buffer) => given.includes(buffer)).length;
  assert.ok(reused > 0 && reused <= 50, `${reused}`);
});

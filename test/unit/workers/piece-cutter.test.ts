import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compress } from '@mongodb-js/zstd';
import { FrameWalker } from '../../../src/format/zstd-frame.js';
import { DECODE_CALL_BYTES } from '../../../workers/decode.js';
import { PieceCutter, statedTarAt } from '../../../workers/piece-cutter.js';
import { tableOf } from '../../support/layer-tables.js';
import { noise } from '../../support/layout.js';

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

test('when there is nothing to wait for, a piece is all frames that are whole', async () => {
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

test('no piece can decode to more than one call may yield, whatever the metadata says', async () => {
  const { bytes, ends } = await framesOf(Buffer.alloc(20 * MIB), Buffer.alloc(20 * MIB));
  const walker = new FrameWalker();
  walker.advance(bytes, bytes.length);
  assert.ok(walker.boundUpTo(1) > DECODE_CALL_BYTES);
  assert.equal(new PieceCutter(NOTHING, 0, MIB).next(walker, 0, true), ends[0]);
});

test('a frame that alone decodes to more than one call may yield is unsupported', async () => {
  const { bytes } = await framesOf(Buffer.alloc(DECODE_CALL_BYTES + MIB));
  for (const received of [bytes.length, bytes.length - 10]) {
    const walker = new FrameWalker();
    walker.advance(bytes, received);
    assert.throws(() => new PieceCutter(NOTHING, 0, MIB).next(walker, 0, true), { code: 'unsupported' });
  }
});

test('the metadata states where the tar is at the ends and starts of contents, and nowhere else', () => {
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

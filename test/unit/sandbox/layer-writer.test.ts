import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decompress } from '@mongodb-js/zstd';
import { FrameQueue } from '../../../src/sandbox/layer-writer.js';
import { createPrng } from '../../../src/sandbox/sample-content.js';

test('frames are written in the order of their pieces, and each callback gets its offsets', async () => {
  const prng = createPrng(3, 0);
  const written: Buffer[] = [];
  const queue = new FrameQueue((frame) => written.push(frame));
  const log: string[] = [];
  const pieces: Buffer[] = [];
  const ranges: [number, number][] = [];
  for (let row = 0; row < 200; row += 1) {
    const piece = Buffer.alloc(1 + prng.below(20_000), row);
    pieces.push(piece);
    queue.add(piece, (start, end) => {
      log.push(`frame ${row}`);
      ranges.push([start, end]);
    });
    queue.after(() => log.push(`after ${row}`));
    await queue.room();
  }
  await queue.drained();
  assert.deepEqual(
    log,
    pieces.flatMap((_, row) => [`frame ${row}`, `after ${row}`]),
  );
  const blob = Buffer.concat(written);
  assert.equal(queue.offsetBytes, blob.length);
  for (const [row, [start, end]] of ranges.entries()) {
    assert.deepEqual(await decompress(blob.subarray(start, end)), pieces[row]);
  }
});

test('a failing write rejects instead of waiting forever', async () => {
  const queue = new FrameQueue(() => {
    throw new Error('no space left');
  });
  const fill = async () => {
    for (let row = 0; row < 40; row += 1) {
      queue.add(Buffer.alloc(2 ** 20), () => {});
      await queue.room();
    }
    await queue.drained();
  };
  await assert.rejects(fill, /no space left/);
  await assert.rejects(queue.drained(), /no space left/);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { BLOCK_BYTES, BlockTags, createBlockTags } from '../../../src/export/block-tags.js';

const BLOCK = Buffer.alloc(BLOCK_BYTES, 'of a layer');

function edited(at: number): Buffer {
  const bytes = Buffer.from(BLOCK);
  bytes[at]! ^= 1;
  return bytes;
}

test('the same bytes agree however often they are read, others do not and change nothing', () => {
  const tags = new BlockTags(createBlockTags(3 * BLOCK_BYTES));
  assert.ok(tags.agrees(1, BLOCK));
  for (const at of [0, 16, BLOCK_BYTES / 2 + 3, BLOCK_BYTES - 1]) assert.ok(!tags.agrees(1, edited(at)));
  assert.ok(!tags.agrees(1, BLOCK.subarray(1)));
  assert.ok(tags.agrees(1, BLOCK));
  assert.ok(tags.agrees(0, edited(0)));
  assert.ok(tags.agrees(2, edited(1)));
});

test('a layer has a tag for its last bytes, and an empty one none', () => {
  for (const [tarBytes, blocks] of [
    [0, 0],
    [1, 1],
    [BLOCK_BYTES, 1],
    [BLOCK_BYTES + 1, 2],
  ] as const) {
    assert.equal(createBlockTags(tarBytes).tags.length, blocks);
  }
});

test('the tag of a block is another in every export', () => {
  const first = createBlockTags(BLOCK_BYTES);
  const second = createBlockTags(BLOCK_BYTES);
  for (const rows of [first, second]) new BlockTags(rows).agrees(0, BLOCK);
  assert.notEqual(first.tags[0], second.tags[0]);
});

test('threads that read other bytes of a block at the same time cannot both be right', async () => {
  const blocks = 500;
  const rows = createBlockTags(blocks * BLOCK_BYTES);
  const module = new URL('../../../src/export/block-tags.js', import.meta.url).href;
  const script = `
    const { parentPort, workerData } = require('node:worker_threads');
    import(workerData.module).then(({ BlockTags }) => {
      const tags = new BlockTags(workerData.rows);
      const bytes = Buffer.alloc(64, workerData.letter);
      let agreed = [];
      for (let block = 0; block < ${blocks}; block++) agreed.push(tags.agrees(block, bytes));
      parentPort.postMessage(agreed);
    });`;
  const agreed = await Promise.all(
    ['a', 'b'].map((letter) => {
      const worker = new Worker(script, { eval: true, workerData: { module, rows, letter } });
      return new Promise<boolean[]>((resolve, reject) =>
        worker.once('message', resolve).once('error', reject),
      );
    }),
  );
  for (let block = 0; block < blocks; block++) {
    assert.equal(agreed.filter((thread) => thread[block]).length, 1, `block ${block}`);
  }
});

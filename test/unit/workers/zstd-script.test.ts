import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Outflow } from '../../../workers/outflow.js';
import { ScriptFrame } from '../../../workers/zstd-script.js';

/** A frame of so many blocks, each of which is 4 bytes and decodes to 128 KiB (RFC 8878, 3.1.1.2.2: RLE). */
function runs(blocks: number): Buffer {
  const block = (last: boolean) => {
    const header = Number(last) | (1 << 1) | ((128 * 1024) << 3);
    return [header & 0xff, (header >> 8) & 0xff, header >> 16, 0x78];
  };
  const bytes = Array.from({ length: blocks }, (_, i) => block(i === blocks - 1)).flat();
  return Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38, ...bytes]);
}

test('blocks that decode to 32,768 times their size do not fill the memory at once', async () => {
  let waiting = 0;
  let most = 0;
  let all = 0;
  const out = {
    push(bytes: Buffer) {
      waiting += bytes.length;
      all += bytes.length;
      most = Math.max(most, waiting);
    },
    room() {
      waiting = 0;
      return Promise.resolve();
    },
  };
  const frame = new ScriptFrame(2 ** 17, out as unknown as Outflow);
  await frame.feed(runs(1000));
  await frame.finish();
  assert.equal(all, 1000 * 128 * 1024);
  assert.ok(most <= 17 * 2 ** 20, `${most} bytes at once`);
});

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { compress } from '@mongodb-js/zstd';
import { DecodedQueue } from '../../../../workers/opaque/stream-decoder.js';
import { decodeFrames, ProgramFrame, ScriptFrame } from '../../../../workers/opaque/zstd-engine.js';
import { noise } from '../../../support/layout.js';
import { temporaryDirectory } from '../../../support/temporary.js';

/** Feeds a frame to a program zstd with this script, or with none on PATH. */
async function feed(t: TestContext, script?: string): Promise<void> {
  const directory = temporaryDirectory(t);
  if (script !== undefined) writeFileSync(join(directory, 'zstd'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  const path = process.env['PATH'];
  process.env['PATH'] = directory;
  const frame = new ProgramFrame(2 ** 27, new DecodedQueue(() => {}));
  process.env['PATH'] = path;
  try {
    await frame.feed(Buffer.alloc(10_000_000));
    await frame.finish();
  } finally {
    await frame.close();
  }
}

test('the message of the program is the reason', async (t) => {
  const error = { name: 'Error', message: 'stdin: checksum' };
  await assert.rejects(feed(t, 'echo "stdin: checksum" >&2; exit 1'), error);
  await assert.rejects(feed(t, 'exit 7'), { name: 'Error', message: /exit code 7/ });
});

test('a program that is missing or killed is an internal error', async (t) => {
  await assert.rejects(feed(t), { name: 'PullError', code: 'internal' });
  await assert.rejects(feed(t, 'kill -9 $$'), { name: 'PullError', code: 'internal', message: /SIGKILL/ });
});

test('waiting calls run in their order', async () => {
  const order: number[] = [];
  const frame = await compress(Buffer.alloc(2 ** 21, 'text'), 3);
  const calls = [0, 1, 2, 3, 4, 5].map(async (call) => {
    await decodeFrames(frame);
    order.push(call);
  });
  await Promise.all(calls);
  // Two run at a time: when the last one begins, all others but one have ended.
  assert.ok(order.indexOf(5) >= 4, order.join());
});

test('a call that fails passes its turn on', async () => {
  const bytes = noise(1, 3000);
  for (let i = 0; i < 5; i++) await assert.rejects(decodeFrames(noise(i, 100)));
  assert.ok((await decodeFrames(await compress(bytes, 3))).equals(bytes));
});

/** A frame of so many blocks, each of which is 4 bytes and decodes to 128 KiB (RFC 8878, 3.1.1.2.2: RLE). */
function runs(blocks: number): Buffer {
  const block = (last: boolean) => {
    const header = Number(last) | (1 << 1) | ((128 * 1024) << 3);
    return [header & 0xff, (header >> 8) & 0xff, header >> 16, 0x78];
  };
  const bytes = Array.from({ length: blocks }, (_, i) => block(i === blocks - 1)).flat();
  return Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38, ...bytes]);
}

test('blocks that decode to 32,768 times their size do not fill the memory', async () => {
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
  const frame = new ScriptFrame(2 ** 17, out as unknown as DecodedQueue);
  await frame.feed(runs(1000));
  await frame.finish();
  assert.equal(all, 1000 * 128 * 1024);
  assert.ok(most <= 17 * 2 ** 20, `${most} bytes at once`);
});

test('blocks of a byte are gathered into large parts, and frames of nothing else are refused', async () => {
  const parts: number[] = [];
  const out = {
    push: (bytes: Buffer) => parts.push(bytes.length),
    room: () => Promise.resolve(),
  } as unknown as DecodedQueue;
  // Raw blocks of one byte each, and an empty one that is the last.
  const tiny = (blocks: number) => Buffer.alloc(blocks * 4, Buffer.from([1 << 3, 0, 0, 0x78]));
  const frame = (...blocks: Buffer[]) =>
    Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38]), ...blocks, Buffer.from([1, 0, 0])]);
  const some = new ScriptFrame(2 ** 17, out);
  await some.feed(frame(tiny(5000)));
  await some.finish();
  assert.deepEqual(parts, [5000]);
  const refused = { code: 'unsupported', message: /blocks are so small/ };
  await assert.rejects(new ScriptFrame(2 ** 26 - 1, out).feed(frame(tiny(200))), refused);
});

test('the work is counted for all frames of a blob', async () => {
  const out = { push: () => {}, room: () => Promise.resolve() } as unknown as DecodedQueue;
  const block = [1 << 3, 0, 0, 0x78];
  const frame = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38, ...block, ...block, ...block, 1, 0, 0]);
  const all = async () => {
    for (let frames = 0; frames < 100; frames++) await new ScriptFrame(2 ** 25, out).feed(frame);
  };
  await assert.rejects(all(), { code: 'unsupported' });
});

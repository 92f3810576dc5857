import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Chunker, type Cut } from '../../../src/sandbox/content-frames.js';
import { createPrng } from '../../../src/sandbox/sample-content.js';

function cutsOf(bytes: Buffer, pieceBytes = bytes.length): Cut[] {
  const chunker = new Chunker();
  const cuts: Cut[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    cuts.push(...chunker.push(bytes.subarray(at, at + pieceBytes)));
    assert.ok((cuts.at(-1)?.at ?? 0) <= chunker.settledBytes);
  }
  return [...cuts, ...chunker.end()];
}

/** The rule, byte by byte: sums over a window of 64, holes found by looking ahead. */
function slowly(bytes: Buffer): Cut[] {
  const cuts: Cut[] = [];
  const cut = (at: number, zeros: boolean) => {
    if (at > (cuts.at(-1)?.at ?? 0)) cuts.push({ at, zeros });
  };
  const window = new Uint8Array(64);
  let [one, two] = [64 * 31, 64 * 63 * 31];
  const roll = (byte: number, at: number) => {
    const drop = window[at % 64]!;
    window[at % 64] = byte;
    one = (one + byte - drop) >>> 0;
    two = (two + one - 64 * (drop + 31)) >>> 0;
  };
  for (let at = 0; at < bytes.length; ) {
    let end = at;
    while (end < bytes.length && bytes[end] === 0) end += 1;
    if (end - at >= 1024) {
      cut(at, false);
      for (; at < end; at += 1) roll(0, at);
      cut(at, true);
      continue;
    }
    end = Math.max(end, at + 1);
    for (; at < end; at += 1) {
      roll(bytes[at]!, at);
      if (two % 65536 === 65535) cut(at + 1, false);
    }
  }
  cut(bytes.length, false);
  return cuts;
}

function noise(sizeBytes: number, seed: number): Buffer {
  const prng = createPrng(seed, 0);
  return Buffer.from(Uint8Array.from({ length: sizeBytes }, () => prng.next()));
}

test('random bytes are cut about every 64 KiB, as the rule says byte by byte', () => {
  const bytes = noise(2 ** 20, 1);
  const cuts = cutsOf(bytes);
  assert.deepEqual(cuts, slowly(bytes));
  assert.ok(cuts.length > 8 && cuts.length < 32, `${cuts.length} chunks`);
});

test('a run of 1,024 zeros is a chunk of its own and one of 1,023 is not', () => {
  const [head, tail] = [noise(3000, 2), noise(3000, 3)];
  head[2999] = 1;
  tail[0] = 1;
  const hole = Buffer.concat([head, Buffer.alloc(1024), tail]);
  assert.deepEqual(cutsOf(hole), [
    { at: 3000, zeros: false },
    { at: 4024, zeros: true },
    { at: 7024, zeros: false },
  ]);
  assert.equal(cutsOf(Buffer.concat([head, Buffer.alloc(1023), tail])).length, 1);
});

test('a hole may begin or end a content, or be all of it', () => {
  const data = Buffer.alloc(100, 7);
  const zeros = Buffer.alloc(5000);
  assert.deepEqual(cutsOf(Buffer.concat([zeros, data])), [
    { at: 5000, zeros: true },
    { at: 5100, zeros: false },
  ]);
  assert.deepEqual(cutsOf(Buffer.concat([data, zeros])), [
    { at: 100, zeros: false },
    { at: 5100, zeros: true },
  ]);
  assert.deepEqual(cutsOf(zeros), [{ at: 5000, zeros: true }]);
  assert.deepEqual(cutsOf(Buffer.alloc(1023)), [{ at: 1023, zeros: false }]);
});

test('data with runs of zeros of every length gives the same cuts in pieces of any size', () => {
  const prng = createPrng(4, 0);
  const parts: Buffer[] = [];
  for (let part = 0; part < 60; part += 1) {
    parts.push(noise(prng.below(9000), part), Buffer.alloc(prng.below(2048)));
  }
  const bytes = Buffer.concat(parts);
  const expected = slowly(bytes);
  for (const pieceBytes of [bytes.length, 1, 63, 64, 65, 1023, 1024, 1025, 4096, 65_536]) {
    assert.deepEqual(cutsOf(bytes, pieceBytes), expected, `in pieces of ${pieceBytes}`);
  }
});

test('a content without a byte has no chunk', () => {
  assert.deepEqual(new Chunker().end(), []);
});

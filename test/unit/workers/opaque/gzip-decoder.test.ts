import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { GzipDecoder } from '../../../../workers/opaque/gzip-decoder.js';
import { DecodedQueue } from '../../../../workers/opaque/stream-decoder.js';
import { cutUp } from '../../../support/chunked-layers.js';
import { decode } from '../../../support/decoding.js';
import { noise } from '../../../support/layout.js';
import { skipUnless } from '../../../support/programs.js';

const gunzip = (...pieces: Buffer[]) => decode((out) => new GzipDecoder(out), pieces);

const TEXT = Buffer.concat([noise(1, 300_000), Buffer.alloc(3_000_000, 'text '), noise(2, 50_000)]);
const ZEROS = Buffer.alloc(50);

/** A member with a comment, a name, an extra field and a header checksum of no meaning (RFC 1952, 2.3). */
function decorated(bytes: Buffer): Buffer {
  const member = gzipSync(bytes);
  const header = Buffer.from(member.subarray(0, 10));
  header[3] = 0b11100; // FEXTRA, FNAME, FCOMMENT
  return Buffer.concat([header, Buffer.from([2, 0, 1, 2]), Buffer.from('name\0why\0'), member.subarray(10)]);
}

test('one member is decoded, in pieces of any size', async () => {
  const blob = gzipSync(TEXT);
  for (const pieceBytes of [blob.length, 100_000, 7777]) {
    const { bytes, problem } = await gunzip(...cutUp(blob, pieceBytes));
    assert.equal(problem, undefined);
    assert.ok(bytes.equals(TEXT), `in pieces of ${pieceBytes}`);
  }
});

test('adjacent members are decoded, with or without zeros after them, wherever they are cut', async () => {
  const one = decorated(TEXT.subarray(0, 100));
  const two = gzipSync(TEXT.subarray(100, 500));
  const none = gzipSync('');
  const blob = Buffer.concat([one, two, none, ZEROS, two, ZEROS, none, ZEROS.subarray(0, 3)]);
  const expected = Buffer.concat([TEXT.subarray(0, 500), TEXT.subarray(100, 500)]);
  for (let cut = 0; cut <= blob.length; cut++) {
    const { bytes, problem } = await gunzip(blob.subarray(0, cut), blob.subarray(cut));
    assert.equal(problem, undefined, `cut at ${cut}`);
    assert.ok(bytes.equals(expected), `cut at ${cut}`);
  }
  assert.ok((await gunzip(...cutUp(blob, 1))).bytes.equals(expected));
});

test('thousands of small members, as bgzip writes them, are decoded', async () => {
  const members = cutUp(TEXT, 2000).map((part) => gzipSync(part));
  const { bytes, problem } = await gunzip(...cutUp(Buffer.concat(members), 65_536));
  assert.equal(problem, undefined);
  assert.ok(bytes.equals(TEXT));
});

test('the output of pigz is decoded', { skip: skipUnless('pigz') }, async () => {
  for (const options of [['-p4'], ['-i', '-b', '128']]) {
    const blob = execFileSync('pigz', [...options, '-c'], { input: TEXT, maxBuffer: 2 ** 24 });
    assert.ok((await gunzip(...cutUp(blob, 50_000))).bytes.equals(TEXT), options.join(' '));
  }
});

test('bytes that are no gzip are reported with their offset', async () => {
  const blob = gzipSync(TEXT);
  const flipped = Buffer.from(blob);
  flipped[blob.length - 6]! ^= 1;
  const second = Buffer.concat([blob, ZEROS, gzipSync('x').subarray(0, 15)]);
  const cases: ReadonlyArray<readonly [string, Buffer, RegExp, number]> = [
    ['nothing', Buffer.alloc(0), /is empty/, 0],
    ['a tar', Buffer.alloc(1024, 'a'), /is no gzip data/, 0],
    ['zeros', ZEROS, /is no gzip data/, 0],
    ['half a magic number', Buffer.from([0x1f, 0x8c, 8, 0]), /is no gzip data/, 0],
    ['cut off', blob.subarray(0, -9), /cut off/, blob.length - 9],
    ['without its checksum', blob.subarray(0, -4), /cut off/, blob.length - 4],
    ['a cut header', blob.subarray(0, 1), /cut off/, 1],
    ['a cut second member', second, /cut off/, second.length],
    [
      'garbage behind zeros',
      Buffer.concat([blob, ZEROS, Buffer.from('garbage')]),
      /no padding/,
      blob.length + ZEROS.length,
    ],
  ];
  for (const [what, bytes, message, blobAt] of cases) {
    const { problem } = await gunzip(...cutUp(bytes, 10_000));
    assert.match(problem?.message ?? '', message, what);
    assert.equal(problem?.blobAt, blobAt, what);
  }
  const damaged = await gunzip(...cutUp(flipped, 10_000));
  assert.match(damaged.problem?.message ?? '', /cannot be decoded \(incorrect data check\)/);
  // Zlib tells the place of these to the block it was given.
  const garbage = await gunzip(...cutUp(Buffer.concat([blob, Buffer.from('garbage')]), 10_000));
  assert.match(garbage.problem?.message ?? '', /no padding/);
  for (const { problem } of [damaged, garbage]) {
    assert.ok(problem!.blobAt! > blob.length - 10_000 && problem!.blobAt! <= blob.length);
  }
});

test('an error of the consumer ends the decoder', async () => {
  const blob = gzipSync(Buffer.alloc(50_000_000));
  let taken = 0;
  const out = new DecodedQueue(() => {
    taken += 1;
    throw new Error('the disk is full');
  });
  const decoder = new GzipDecoder(out);
  const all = async () => {
    for (const piece of cutUp(blob, 1000)) await decoder.write(piece);
    await decoder.end();
  };
  await assert.rejects(all(), /the disk is full/);
  await decoder.close();
  assert.equal(taken, 1);
});

test('padding between members is skipped, but not thousands of times', async () => {
  const member = gzipSync('x');
  const padded = (members: number) =>
    Buffer.concat(Array.from({ length: members }, () => Buffer.concat([member, ZEROS.subarray(0, 1)])));
  const some = await gunzip(padded(100));
  assert.deepEqual([some.problem, some.bytes.toString()], [undefined, 'x'.repeat(100)]);
  const many = await gunzip(padded(10_002));
  assert.equal(many.problem?.message, 'has padding before more than 10000 gzip members');
});

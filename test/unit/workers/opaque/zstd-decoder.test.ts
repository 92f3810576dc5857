import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as zlib from 'node:zlib';
import { compress } from '@mongodb-js/zstd';
import { ZstdDecoder } from '../../../../workers/opaque/zstd-decoder.js';
import { bestZstdEngine, type ZstdEngine } from '../../../../workers/opaque/zstd-engine.js';
import { cutUp } from '../../../support/chunked-layers.js';
import { decode, USUAL_WINDOWS } from '../../../support/decoding.js';
import { setEnvironment } from '../../../support/environment.js';
import { noise } from '../../../support/layout.js';
import { skipUnless } from '../../../support/programs.js';
import { zstdBomb } from '../../../support/streams.js';
import { temporaryDirectory } from '../../../support/temporary.js';

/** The engines of this machine; a Node without zstd lacks the first. */
const ENGINES: readonly ZstdEngine[] = [
  ...('createZstdDecompress' in zlib ? (['node'] as const) : []),
  ...(skipUnless('zstd') === false ? (['program'] as const) : []),
  'script',
];

const unzstd = (engine: ZstdEngine, ...pieces: Buffer[]) =>
  decode((out) => new ZstdDecoder(engine, out, USUAL_WINDOWS), pieces);

/** Above what one decoder call may yield, of which a part is noise and most is not. */
const LARGE = Buffer.concat([
  noise(1, 2_000_000),
  Buffer.alloc(20_000_000),
  noise(1, 1_000_000),
  Buffer.alloc(20_000_000, 'long text '),
]);
const SMALL = LARGE.subarray(1_500_000, 3_000_000);

const MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

function skippable(bytes: Buffer): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a53, 0);
  header.writeUInt32LE(bytes.length, 4);
  return Buffer.concat([header, bytes]);
}

test('the best engine is one that exists here', () => {
  assert.equal(bestZstdEngine(), ENGINES[0]);
});

for (const engine of ENGINES) {
  test(`a large frame is decoded block by block, by the engine "${engine}"`, async () => {
    const blob = await compress(LARGE, 1);
    for (const pieceBytes of [2 ** 20, 100_003]) {
      const { bytes, problem } = await unzstd(engine, ...cutUp(blob, pieceBytes));
      assert.equal(problem, undefined);
      assert.ok(bytes.equals(LARGE));
    }
  });

  test(`large and small frames are decoded in order, by the engine "${engine}"`, async () => {
    const large = await compress(LARGE, 1);
    const small = await compress(SMALL, 1);
    const parts = [small, skippable(noise(3, 100)), large, await compress(Buffer.alloc(0), 1), large, small];
    const { bytes, problem } = await unzstd(engine, ...cutUp(Buffer.concat(parts), 2 ** 20));
    assert.equal(problem, undefined);
    assert.ok(bytes.equals(Buffer.concat([SMALL, LARGE, LARGE, SMALL])));
  });

  test(`damage in a large frame is reported with its offset, by the engine "${engine}"`, async () => {
    const before = await compress(SMALL, 1);
    const frame = await compress(LARGE, 1);
    const blob = Buffer.concat([before, frame]);
    // A checksum that is wrong (RFC 8878, 3.1.1): damage that does not show in the blocks.
    frame[4]! |= 0x04;
    const damaged = Buffer.concat([before, frame, Buffer.alloc(4)]);
    const { bytes, problem } = await unzstd(engine, ...cutUp(damaged, 2 ** 20));
    if (engine === 'script') {
      // fzstd ignores checksums; the DiffID proves the layer.
      assert.ok(bytes.equals(Buffer.concat([SMALL, LARGE])));
    } else {
      assert.match(problem?.message ?? '', /cannot be decoded \(.+\)/);
      assert.ok(problem!.blobAt! >= before.length && problem!.blobAt! < damaged.length);
    }
    const cut = await unzstd(engine, ...cutUp(blob.subarray(0, -5), 2 ** 20));
    assert.match(cut.problem?.message ?? '', /cut off/);
    assert.equal(cut.problem?.blobAt, blob.length - 5);
  });

  test(`a window of 128 MiB is decoded or refused, by the engine "${engine}"`, {
    skip: skipUnless('zstd'),
  }, async () => {
    const blob = execFileSync('zstd', ['-1', '--long=27', '-c'], { input: LARGE, maxBuffer: 2 ** 26 });
    const { bytes, problem } = await unzstd(engine, ...cutUp(blob, 2 ** 20));
    if (engine === 'script') {
      assert.equal(problem?.code, 'unsupported');
      assert.match(problem.message, /a window of 128 MiB/);
    } else {
      assert.equal(problem, undefined);
      assert.ok(bytes.equals(LARGE));
    }
  });

  test(`a skippable frame above the bound of memory is skipped, by the engine "${engine}"`, async () => {
    const small = await compress(SMALL, 1);
    const blob = Buffer.concat([small, skippable(Buffer.alloc(40_000_000)), small]);
    const { bytes, problem } = await unzstd(engine, ...cutUp(blob, 2 ** 20));
    assert.equal(problem, undefined);
    assert.ok(bytes.equals(Buffer.concat([SMALL, SMALL])));
  });

  test(`a decoder that is closed in the middle leaves no process or memory, by the engine "${engine}"`, async () => {
    const frame = await compress(LARGE, 1);
    await assert.rejects(
      decode(
        (out) => {
          const decoder = new ZstdDecoder(engine, out, USUAL_WINDOWS);
          return {
            write: (bytes) => decoder.write(bytes),
            end: () => Promise.reject(new Error('enough')),
            close: () => decoder.close(),
          };
        },
        cutUp(frame, 2 ** 20).slice(0, 2),
      ),
      /enough/,
    );
  });
}

test('any number of small frames are decoded, in pieces of any size', async () => {
  const frames = await Promise.all(cutUp(SMALL, 3000).map((part) => compress(part, 1)));
  const blob = Buffer.concat([skippable(Buffer.alloc(0)), ...frames, skippable(noise(4, 50_000))]);
  for (const pieceBytes of [blob.length, 2 ** 20, 100_000, 777]) {
    const { bytes, problem } = await unzstd('script', ...cutUp(blob, pieceBytes));
    assert.equal(problem, undefined);
    assert.ok(bytes.equals(SMALL), `in pieces of ${pieceBytes}`);
  }
});

test('a blob of only skippable and empty frames decodes to nothing', async () => {
  const blob = Buffer.concat([skippable(noise(1, 100)), await compress(Buffer.alloc(0), 1)]);
  assert.deepEqual(await unzstd('script', ...cutUp(blob, 7)), { bytes: Buffer.alloc(0) });
});

test('the output of the program zstd is decoded', { skip: skipUnless('zstd') }, async () => {
  for (const options of [['-T0', '-3'], ['-1', '--no-check'], ['-3', '-B100000'], ['--fast=3']]) {
    const blob = execFileSync('zstd', [...options, '-c'], { input: SMALL, maxBuffer: 2 ** 24 });
    const { bytes, problem } = await unzstd('script', ...cutUp(blob, 50_000));
    assert.equal(problem, undefined);
    assert.ok(bytes.equals(SMALL), options.join(' '));
  }
});

test('the window of a large frame is limited, that of a small one is not', async () => {
  const frame = await compress(SMALL, 1);
  const wide = Buffer.concat([MAGIC, Buffer.of(0, 0xff, 1, 0, 0)]);
  assert.deepEqual(await unzstd('script', frame, wide), { bytes: SMALL });
  const large = zstdBomb(300);
  large[5] = 18 << 3;
  const { problem } = await unzstd('script', frame, large);
  assert.equal(problem?.code, 'unsupported');
  assert.equal(problem.blobAt, frame.length);
  assert.match(problem.message, /needs a window of 256 MiB; at most 128 MiB are supported/);
  assert.match(problem.hint ?? '', /1024 MiB of memory/);
});

test('bytes that are no zstd are reported with their offset', async () => {
  const frame = await compress(SMALL, 1);
  const cases: ReadonlyArray<readonly [string, Buffer, RegExp, number]> = [
    ['nothing', Buffer.alloc(0), /is empty/, 0],
    ['gzip', Buffer.from([0x1f, 0x8b, 8, 0]), /is no zstd data/, 0],
    ['cut off', frame.subarray(0, -1), /cut off/, frame.length - 1],
    ['a cut header', frame.subarray(0, 3), /cut off/, 3],
    ['garbage', Buffer.concat([frame, Buffer.from('garbage')]), /no zstd frames/, frame.length],
    ['a newline', Buffer.concat([frame, Buffer.from('\n')]), /no zstd frames/, frame.length],
    [
      'a wrong magic number',
      Buffer.concat([frame, MAGIC.subarray(0, 2), Buffer.of(1)]),
      /no zstd frames/,
      frame.length,
    ],
    ['a cut skippable frame', Buffer.concat([frame, Buffer.of(0x50, 0x2a)]), /cut off/, frame.length + 2],
    ['zeros', Buffer.concat([frame, Buffer.alloc(1000)]), /no zstd frames/, frame.length],
    [
      'no block',
      Buffer.concat([frame, MAGIC, Buffer.of(0x20, 1, 7, 0, 0)]),
      /no zstd frames/,
      frame.length + 6,
    ],
  ];
  for (const [what, bytes, message, blobAt] of cases) {
    const { problem } = await unzstd('script', ...cutUp(bytes, 10_000_000));
    assert.match(problem?.message ?? '', message, what);
    assert.equal(problem?.blobAt, blobAt, what);
  }
});

test('the program is not started for each of many small frames that could be large', {
  skip: skipUnless('zstd', 'sh'),
}, async (t) => {
  const directory = temporaryDirectory(t);
  const starts = join(directory, 'starts');
  const zstd = execFileSync('sh', ['-c', 'command -v zstd'], { encoding: 'utf8' }).trim();
  const script = `#!/bin/sh\necho >> '${starts}'\nexec '${zstd}' "$@"\n`;
  writeFileSync(join(directory, 'zstd'), script, { mode: 0o755 });
  setEnvironment(t, { PATH: `${directory}:${process.env['PATH']}` });
  // 260 compressed blocks that decode to nothing: no literals, no sequences (RFC 8878, 3.1.1.3).
  const blocks = Buffer.alloc(260 * 5, Buffer.from([(2 << 3) | 4, 0, 0, 0, 0]));
  const frame = Buffer.concat([MAGIC, Buffer.from([0, 0x38]), blocks, Buffer.from([1, 0, 0])]);
  const small = await compress(SMALL, 1);
  const blob = Buffer.concat(Array.from({ length: 300 }, () => [frame, skippable(frame)]).flat());
  const { bytes, problem } = await unzstd(
    'program',
    ...cutUp(Buffer.concat([small, blob, small, frame]), 2 ** 20),
  );
  assert.equal(problem, undefined);
  assert.ok(bytes.equals(Buffer.concat([SMALL, SMALL])));
  assert.equal(statSync(starts).size, 1);
});

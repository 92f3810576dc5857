import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import * as zlib from 'node:zlib';
import type { LayerFormat } from '../../src/api/pull.js';
import { FORMATS_LAYOUT } from '../support/fixture-layout.js';
import {
  addBlob,
  emptyLayout,
  nameImage,
  noise,
  readConfig,
  readManifest,
  tarOf,
} from '../support/layout.js';
import { skipUnless } from '../support/programs.js';
import { assertProven, failureOf, pull, warnings } from '../support/pull.js';
import { startSandbox } from '../support/sandbox.js';
import { temporaryDirectory } from '../support/temporary.js';
import { digestOf } from '../unit/store/support.js';

const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';

const TEXT = Buffer.from(Array.from({ length: 80_000 }, (_, row) => `line ${row} of ${row ** 2}\n`).join(''));

const FILES = { noise: noise(1, 500_000), empty: Buffer.alloc(0), text: TEXT };
const TAR = tarOf(FILES);

/** Above 32 MiB: as one zstd frame it is too large for one call of a decoder. */
const LARGE_TAR = tarOf({ ...FILES, zeros: Buffer.alloc(30 * 2 ** 20) });

/** What a program makes of these bytes. */
function through(program: string, args: readonly string[], input: Buffer): Buffer {
  return execFileSync(program, args, { input, maxBuffer: 2 ** 30, stdio: ['pipe', 'pipe', 'ignore'] });
}

/** Where an image of this one layer is served. */
async function imageOf(t: TestContext, blob: Buffer, tar: Buffer, compression: 'gzip' | 'zstd') {
  const layout = emptyLayout(t);
  const mediaType = `${OCI_LAYER}+${compression}`;
  const layer = { mediaType, digest: addBlob(layout, blob), size: blob.length };
  nameImage(layout, 'it', [layer], [digestOf(tar)]);
  const { host } = await startSandbox(t, { layout });
  return `${host}/x:it`;
}

/** Pulls an image of this one layer, and proves it. */
async function pullLayer(t: TestContext, blob: Buffer, tar: Buffer, compression: 'gzip' | 'zstd') {
  const image = await imageOf(t, blob, tar, compression);
  const options = { store: temporaryDirectory(t), platform: 'linux/amd64' };
  const { result, events } = await pull(image, options);
  assert.deepEqual(warnings(events), []);
  assert.deepEqual(
    result.layers.map((pulled) => [pulled.format, pulled.tarBytes]),
    [[compression, tar.length]],
  );
  assertProven(result);
}

const HALF = 1_000_001;

/** What makes a layer of a tar, and which programs it takes. */
const MADE: ReadonlyArray<{
  readonly by: string;
  readonly programs?: readonly string[];
  readonly compression: 'gzip' | 'zstd';
  readonly tar?: Buffer;
  readonly make: (tar: Buffer) => Buffer;
}> = [
  {
    by: 'pigz',
    programs: ['pigz'],
    compression: 'gzip',
    make: (tar) => through('pigz', ['-c', '-p', '4'], tar),
  },
  {
    by: 'pigz -i, whose blocks know nothing of each other',
    programs: ['pigz'],
    compression: 'gzip',
    make: (tar) => through('pigz', ['-c', '-i', '-b', '128'], tar),
  },
  {
    by: 'gzip in many members',
    compression: 'gzip',
    make: (tar) => {
      const cuts = [0, 1, 512, 70_000, 70_001, HALF, HALF + 513, tar.length];
      return Buffer.concat(
        cuts.slice(1).map((end, i) => zlib.gzipSync(tar.subarray(cuts[i], end), { level: 1 })),
      );
    },
  },
  {
    by: 'gzip with zeros behind it, as a tape leaves them',
    compression: 'gzip',
    make: (tar) => Buffer.concat([zlib.gzipSync(tar, { level: 1 }), Buffer.alloc(1_500_000)]),
  },
  {
    by: 'zstd -T0 --long',
    programs: ['zstd'],
    compression: 'zstd',
    tar: LARGE_TAR,
    make: (tar) => through('zstd', ['-c', '-T0', '--long'], tar),
  },
  {
    by: 'zstd in two halves, each a frame',
    programs: ['zstd'],
    compression: 'zstd',
    tar: LARGE_TAR,
    make: (tar) =>
      Buffer.concat([tar.subarray(0, HALF), tar.subarray(HALF)].map((half) => through('zstd', ['-c'], half))),
  },
];

for (const { by, programs = [], compression, tar = TAR, make } of MADE) {
  test(`a layer made by ${by} is the tar that went in`, { skip: skipUnless(...programs) }, (t) =>
    pullLayer(t, make(tar), tar, compression),
  );
}

test('a layer made by zstd -19, which states its length, is the tar that went in', {
  skip: skipUnless('zstd'),
}, async (t) => {
  const tar = tarOf({ noise: noise(1, 100_000), text: TEXT.subarray(0, 300_000) });
  const blob = through('zstd', ['-c', '-19', `--stream-size=${tar.length}`, '--check'], tar);
  await pullLayer(t, blob, tar, 'zstd');
});

/** Takes the programs away until the test ends. */
function withoutPrograms(t: TestContext): void {
  const path = process.env['PATH'];
  t.after(() => {
    process.env['PATH'] = path;
  });
  process.env['PATH'] = '';
}

test('one large zstd frame is decoded without a zstd program too', {
  skip: skipUnless('zstd'),
}, async (t) => {
  const blob = through('zstd', ['-c', '-3'], LARGE_TAR);
  withoutPrograms(t);
  await pullLayer(t, blob, LARGE_TAR, 'zstd');
});

test('a zstd frame with a window of 128 MiB is decoded where Node can, and otherwise the hint says what to install', {
  skip: skipUnless('zstd'),
}, async (t) => {
  const blob = through('zstd', ['-c', '-1', '--long'], LARGE_TAR);
  withoutPrograms(t);
  if ('createZstdDecompress' in zlib) return pullLayer(t, blob, LARGE_TAR, 'zstd');
  const image = await imageOf(t, blob, LARGE_TAR, 'zstd');
  const error = await failureOf(pull(image, { store: temporaryDirectory(t) }));
  assert.deepEqual([error.code, error.exitCode], ['unsupported', 8]);
  assert.match(error.hint ?? '', /install the program zstd/);
});

for (const format of ['gnu', 'pax', 'v7', 'ustar'] as const) {
  test(`a directory archived by tar --format=${format} and compressed by pigz is that archive`, {
    skip: skipUnless('tar', 'pigz'),
  }, async (t) => {
    const directory = temporaryDirectory(t);
    mkdirSync(join(directory, 'a/b'), { recursive: true });
    for (const [row, sizeBytes] of [0, 1, 511, 512, 513, 70_000].entries())
      writeFileSync(join(directory, `a/b/file-${row}`), noise(row + 1, sizeBytes));
    if (format === 'gnu' || format === 'pax') writeFileSync(join(directory, 'a', 'n'.repeat(200)), 'long');
    const tar = through('tar', ['-c', `--format=${format}`, '-C', directory, '.'], Buffer.alloc(0));
    await pullLayer(t, through('pigz', ['-c'], tar), tar, 'gzip');
  });
}

const CONVERTED: ReadonlyArray<readonly [to: string, format: LayerFormat]> = [
  ['zstd:chunked', 'zstd:chunked-no-tarsplit'],
  ['zstd', 'zstd'],
  ['gzip', 'gzip'],
];

test('an image that skopeo converted to any format is pulled as that image', {
  skip: skipUnless('skopeo'),
}, async (t) => {
  const layout = emptyLayout(t);
  for (const [to] of CONVERTED) {
    const copy = ['copy', '--quiet', '--insecure-policy', '--dest-compress-format', to];
    const places = [`oci:${FORMATS_LAYOUT}:plain`, `oci:${layout}:${to.replace(':', '-')}`];
    through('skopeo', [...copy, ...places], Buffer.alloc(0));
  }
  const { host } = await startSandbox(t, { layout });
  for (const [to, format] of CONVERTED) {
    const ref = to.replace(':', '-');
    const { result } = await pull(`${host}/x:${ref}`, { store: temporaryDirectory(t) });
    assert.deepEqual(
      result.layers.map((layer) => [layer.diffId, layer.format]),
      readConfig(layout, readManifest(layout, ref)).rootfs.diff_ids.map((diffId) => [diffId, format]),
    );
    assertProven(result);
  }
});

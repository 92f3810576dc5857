import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DIGEST_BYTES, digestAt, parseDigest } from '../../../src/format/digest.js';
import type { LayerTable } from '../../../src/format/layer-table.js';
import { buildTocOnlyTable } from '../../../src/format/toc-only-table-builder.js';
import type { ReadLayer } from '../../support/dialect-layers.js';
import { noise, tarOf } from '../../support/layout.js';
import { seededRandom } from '../../support/random.js';
import { randomTar } from '../../support/random-tar.js';
import {
  TOC_ONLY_FORMATS,
  type TocOnlyLayer,
  tocOnlyFixtures,
  writeTocOnly,
} from '../../support/toc-only-layers.js';
import { throwsError } from './fixture.js';

const MIB = 2 ** 20;
const SEEDS = 20;

type Entry = Partial<ReadLayer['entries'][number]>;

/** Entries that differ from each other by their digest. */
const digestOf = (name: number) => `sha256:${String(name).padStart(64, '0')}`;

function tocOf(entries: readonly Entry[]): Buffer {
  return Buffer.from(JSON.stringify({ version: 1, entries }));
}

/** The table of these entries in a blob with so many bytes of data. */
function build(entries: readonly Entry[], dataEnd = 1000): LayerTable {
  return buildTocOnlyTable({ toc: tocOf(entries), dataEnd, compression: 'zstd' });
}

/** A file whose frames are [offset, endOffset) of the blob. */
function apart(offset: number, endOffset: number, more: Entry = {}): Entry {
  return { type: 'reg', name: 'f', size: 10, digest: digestOf(offset), offset, endOffset, ...more };
}

/** A file whose last frame goes on with what follows it. */
function within(offset: number, more: Entry = {}): Entry {
  return { type: 'reg', name: 'f', size: 10, digest: digestOf(offset), offset, ...more };
}

function chunk(offset: number, chunkOffset: number, more: Entry = {}): Entry {
  return { type: 'chunk', name: 'f', offset, chunkOffset, chunkDigest: digestOf(offset), ...more };
}

function ranges({ blobStart, blobEnd }: LayerTable): number[][] {
  return [...blobStart].map((start, row) => [start, blobEnd[row]!]);
}

/** Contents of a TOC by a slow reading of the format: a content's frames end where a frame of a later one begins. */
function contentsOf({ entries, dataEnd }: TocOnlyLayer) {
  const contents = entries.filter(({ type, size = 0 }) => type === 'reg' && size > 0);
  return contents.map((entry) => {
    const next = entries.indexOf(entry) + 1;
    const own = entries.slice(next).findIndex(({ type }) => type !== 'chunk');
    const last = own < 0 ? entries.at(-1)! : own === 0 ? entry : entries[next + own - 1]!;
    const starts = entries.flatMap(({ offset, innerOffset }) =>
      offset !== undefined && innerOffset === undefined && offset > last.offset! ? [offset] : [],
    );
    return { entry, blobEnd: entry.endOffset ?? Math.min(dataEnd, ...starts) };
  });
}

function assertTable(layer: TocOnlyLayer, hint: string): void {
  const { table, entries, tar } = layer;
  const contents = contentsOf(layer);
  assert.equal(table.count, contents.length, hint);
  assert.equal(table.entries, entries.filter(({ type }) => type !== 'chunk').length, hint);
  assert.equal(table.dataEnd, layer.dataEnd, hint);
  for (const [row, { entry, blobEnd }] of contents.entries()) {
    const where = `${hint}: ${entry.name}`;
    assert.equal(table.sizeBytes[row], entry.size, where);
    assert.equal(digestAt(table.digests, row), entry.digest, where);
    // Those that share frames are one: the first one's start, the last one's end.
    const last = contents.findLastIndex((_, other) => table.blobStart[other] === table.blobStart[row]);
    assert.equal(table.blobEnd[row], contents[last]!.blobEnd, where);
    assert.ok(table.blobStart[row]! <= entry.offset! && blobEnd <= table.blobEnd[row]!, where);
    if (table.blobStart[row] !== entry.offset) assert.ok((entry.innerOffset ?? 0) > 0, where);
  }
  assertInvariants(table, hint);
  assert.ok(table.tarBytes >= tar.length, hint);
}

function assertInvariants(table: LayerTable, hint: string): void {
  const { count, blobStart, blobEnd, tarStart, sizeBytes, dataEnd, tarBytes } = table;
  for (let row = 0; row < count; row++) {
    const last = row + 1 === count;
    assert.ok(sizeBytes[row]! > 0 && blobStart[row]! < blobEnd[row]!, hint);
    assert.ok(blobEnd[row]! <= dataEnd, hint);
    assert.ok(tarStart[row]! + sizeBytes[row]! <= (last ? tarBytes : tarStart[row + 1]!), hint);
    if (last) continue;
    const shared = blobStart[row] === blobStart[row + 1] && blobEnd[row] === blobEnd[row + 1];
    assert.ok(
      (shared && table.layout === 'shared-frames') || blobEnd[row]! <= blobStart[row + 1]!,
      `${hint}, row ${row}`,
    );
  }
}

/** Between any two places of the blob where a content begins, the frames decode to no more than is allotted. */
function assertAllotment({ table, members, name }: TocOnlyLayer, hint: string): void {
  let tarAt = 0;
  const trueAt = new Map<number, number>();
  for (const { start, raw } of members) {
    trueAt.set(start, tarAt);
    tarAt += raw.length;
  }
  let before = { blob: 0, allotted: 0 };
  for (let row = 0; row < table.count; row++) {
    const blob = table.blobStart[row]!;
    if (blob <= before.blob) continue;
    const decoded = trueAt.get(blob)! - trueAt.get(before.blob)!;
    assert.ok(
      decoded <= table.tarStart[row]! - before.allotted,
      `${hint}: ${name}, ${before.blob} to ${blob}`,
    );
    before = { blob, allotted: table.tarStart[row]! };
  }
}

test('the tables of layers that other programs wrote have what their TOCs state', async () => {
  for (const layer of await tocOnlyFixtures()) {
    assertTable(layer, layer.name);
    assertAllotment(layer, layer.name);
    assert.equal(layer.table.chunkBlobStart.length, 0);
    const isOld = layer.entries.some(({ endOffset }) => endOffset !== undefined);
    assert.equal(
      layer.table.layout,
      isOld ? 'separate-frames' : layer.table.count === 0 ? 'separate-frames' : 'shared-frames',
    );
    if (isOld || layer.table.count === 0) continue;
    assert.deepEqual(ranges(layer.table).at(-1)?.[1], layer.dataEnd);
  }
});

for (const format of TOC_ONLY_FORMATS) {
  test(`the tables of random trees written as ${format} have what their TOCs state`, async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const options = { chunkBytes: 100_000, minChunkBytes: (seed % 3) * 20_000 };
      const layer = await writeTocOnly(format, randomTar(seededRandom(seed)), options);
      assertTable(layer, `seed ${seed}`);
      assertAllotment(layer, `seed ${seed}`);
      assert.equal(layer.table.compression, format === 'estargz' ? 'gzip' : 'zstd');
    }
  });
}

test('contents that share a frame have its whole range, each its own digest', async () => {
  const files = Object.fromEntries(Array.from({ length: 6 }, (_, row) => [`f${row}`, noise(row + 1, 600)]));
  for (const format of ['stargz-zstd', 'estargz'] as const) {
    const { table, entries, dataEnd } = await writeTocOnly(format, tarOf(files), { minChunkBytes: 4000 });
    const offsets = [...new Set(entries.map(({ offset }) => offset!))];
    assert.equal(offsets.length, 3);
    const ends = [...offsets.slice(1), dataEnd];
    assert.deepEqual(
      ranges(table),
      entries.map(({ offset }) => [offset, ends[offsets.indexOf(offset!)]]),
    );
    assert.equal(new Set([...Array(table.count).keys()].map((row) => digestAt(table.digests, row))).size, 7);
  }
});

test('a content behind the last chunk of another belongs to the frames of both', () => {
  const large = { size: 40 * MIB, chunkSize: 20 * MIB, chunkDigest: digestOf(1) };
  const table = build(
    [
      within(1000),
      within(1000, { innerOffset: 522, ...large }),
      chunk(2000, 20 * MIB),
      within(2000, { innerOffset: 9000, ...large }),
      chunk(3000, 20 * MIB),
      within(4000),
    ],
    10_000,
  );
  assert.deepEqual(ranges(table), [
    [1000, 4000],
    [1000, 4000],
    [1000, 4000],
    [4000, 10_000],
  ]);
  assert.deepEqual([...table.chunkBlobStart], [1000, 2000, 2000, 3000]);
});

test('where headers are frames of their own, contents end where they say', () => {
  const table = build([apart(100, 300), { type: 'dir', name: 'd' }, apart(300, 301), apart(500, 1000)]);
  assert.equal(table.layout, 'separate-frames');
  assert.deepEqual(ranges(table), [
    [100, 300],
    [300, 301],
    [500, 1000],
  ]);
});

test('where they are not, a content ends where the next one begins, the last at the end of the data', () => {
  const table = build([within(0), within(100), within(300), within(300, { innerOffset: 522 }), within(700)]);
  assert.equal(table.layout, 'shared-frames');
  assert.deepEqual(ranges(table), [
    [0, 100],
    [100, 300],
    [300, 700],
    [300, 700],
    [700, 1000],
  ]);
});

test('empty files, links and directories are entries without rows', () => {
  const empty = { type: 'reg', name: 'e', digest: digestOf(0) };
  const table = build([{ type: 'dir', name: 'd' }, empty, within(100), { type: 'symlink', name: 'l' }]);
  assert.deepEqual([table.count, table.entries], [1, 4]);
  assert.deepEqual([build([]).count, build([]).entries, build([]).dataEnd], [0, 0, 1000]);
});

test('an entry has room for its headers, and the more of it the longer its text', () => {
  const pad = 'x'.repeat(10_000);
  const short = build([within(0), within(100)]);
  const long = build([within(0), within(100, { name: `f${pad}` })]);
  assert.ok(short.tarStart[0]! >= 4096);
  assert.ok(short.tarStart[1]! >= short.tarStart[0]! + 10 + 4096);
  assert.equal(long.tarStart[1]! - short.tarStart[1]!, pad.length);
  assert.ok(long.tarBytes >= long.tarStart[1]! + 10 + MIB);
});

test('where a frame goes on with the gap, chunks are rows whatever they are long, unless their digests are not stated', () => {
  const large = { size: 30, chunkSize: 20, chunkDigest: digestOf(1) };
  assert.deepEqual([...build([within(0, large), chunk(300, 20)]).chunkBlobStart], [0, 300]);
  const { chunkDigest: _, ...without } = large;
  assert.equal(build([within(0, without), chunk(300, 20)]).chunkBlobStart.length, 0);
});

test('where gaps are frames of their own, chunks become rows only above the limits of a span', () => {
  const chunks = (sizeBytes: number, blobBytes: number) =>
    build(
      [
        apart(100, 100 + blobBytes, { size: sizeBytes, chunkSize: 6, chunkDigest: digestOf(1) }),
        chunk(200, 6, { chunkSize: sizeBytes - 6 }),
        apart(100 + blobBytes, 101 + blobBytes),
      ],
      blobBytes + 1000,
    );
  for (const [sizeBytes, blobBytes, rows] of [
    [32 * MIB, 8 * MIB, 0],
    [32 * MIB + 1, 8 * MIB, 2],
    [32 * MIB, 8 * MIB + 1, 2],
  ] as const) {
    const table = chunks(sizeBytes, blobBytes);
    assert.deepEqual([...table.chunkFirst], [0, rows, rows], `${sizeBytes}, ${blobBytes}`);
    if (rows === 0) continue;
    assert.deepEqual([...table.chunkBlobStart], [100, 200]);
    assert.deepEqual([...table.chunkTarStart], [table.tarStart[0], table.tarStart[0]! + 6]);
    assert.deepEqual(
      [digestAt(table.chunkDigests, 0), digestAt(table.chunkDigests, 1)],
      [digestOf(1), digestOf(200)],
    );
  }
});

test('the last chunk of a stargz writer needs no size', () => {
  const first = { size: 40 * MIB, chunkSize: 16 * MIB, chunkDigest: digestOf(1) };
  const table = build(
    [within(0, first), chunk(3000, 16 * MIB, { chunkSize: 16 * MIB }), chunk(6000, 32 * MIB)],
    10_000,
  );
  assert.deepEqual([...table.chunkBlobStart], [0, 3000, 6000]);
  assert.deepEqual(
    [...table.chunkTarStart].map((at) => at - table.tarStart[0]!),
    [0, 16 * MIB, 32 * MIB],
  );
  assert.deepEqual(ranges(table), [[0, 10_000]]);
});

test('a large content written in chunks has them as rows', async () => {
  const tar = tarOf({ big: Buffer.alloc(33 * MIB, 'text'), small: noise(1, 100) });
  for (const format of ['stargz-zstd', 'estargz'] as const) {
    const { table, entries } = await writeTocOnly(format, tar, { chunkBytes: 8 * MIB });
    const parts = entries.filter(({ name }) => name === 'big');
    assert.deepEqual(
      [...table.chunkBlobStart],
      parts.map(({ offset }) => offset),
    );
    assert.deepEqual(
      [...table.chunkTarStart].map((at) => at - table.tarStart[1]!),
      parts.map(({ chunkOffset = 0 }) => chunkOffset),
    );
    for (const [row, { chunkDigest }] of parts.entries()) {
      assert.equal(digestAt(table.chunkDigests, row), parseDigest(chunkDigest!, 'chunkDigest'));
    }
    assert.equal(table.chunkDigests.length, 5 * DIGEST_BYTES);
  }
});

/** What must be refused, and what the error says of it. */
const REFUSED: ReadonlyArray<readonly [string, RegExp, readonly Entry[]]> = [
  [
    'a file that lies before the last',
    /entry 1: offset 200 lies before 300/,
    [apart(100, 300), apart(200, 400)],
  ],
  ['a frame that begins twice', /entry 1: offset 100 lies before 100/, [within(100), within(100)]],
  ['a frame that lies before the last', /entry 1: offset 50 lies before 100/, [within(100), within(50)]],
  ['an end before the start', /entry 0: endOffset 100 is not beyond offset 100/, [apart(100, 100)]],
  ['an end beyond the data', /entry 0: endOffset 1001 lies beyond the data, 1000/, [apart(100, 1001)]],
  ['a start beyond the data', /entry 0: offset 1000 lies beyond the data/, [within(1000)]],
  ['ends for some files only', /entry 1: endOffset is given for some/, [apart(100, 300), within(400)]],
  [
    'ends for some files only, the other way',
    /entry 1: endOffset is given for some/,
    [within(100), apart(300, 400)],
  ],
  ['a file without digest', /entry 0: digest is missing/, [within(100, { digest: undefined } as never)]],
  ['a digest that is none', /has a digest that is no sha256/, [within(100, { digest: 'sha256:00' })]],
  ['a digest that goes on', /has a digest that is no sha256/, [within(100, { digest: `${digestOf(1)}0` })]],
  [
    'a digest of another kind',
    /has a digest that is no sha256/,
    [within(100, { digest: `sha512:${'0'.repeat(64)}` })],
  ],
  [
    'a file that begins as a chunk',
    /entry 0: chunkOffset is 5 in a reg entry/,
    [within(100, { chunkOffset: 5 })],
  ],
  [
    'a first chunk above the size',
    /entry 0: chunkSize 11 is above the size, 10/,
    [within(100, { chunkSize: 11 })],
  ],
  ['a chunk that follows nothing', /entry 0: a chunk that follows no file/, [chunk(100, 5)]],
  [
    'a chunk behind a directory',
    /entry 2: a chunk that follows no file/,
    [within(100, { chunkSize: 10 }), { type: 'dir', name: 'd' }, chunk(200, 10)],
  ],
  [
    'chunks that leave a hole',
    /entry 1: chunkOffset is 6, but the chunks before end at 5/,
    [within(100, { chunkSize: 5 }), chunk(200, 6)],
  ],
  [
    'chunks that reach beyond their file',
    /entry 1: chunkSize 6 reaches beyond the file's 10 bytes/,
    [within(100, { chunkSize: 5 }), chunk(200, 5, { chunkSize: 6 })],
  ],
  [
    'a chunk behind the last byte',
    /entry 1: chunkSize 0 reaches beyond the file's 10 bytes/,
    [within(100, { chunkSize: 10 }), chunk(200, 10)],
  ],
  [
    'chunks that end too early',
    /entry 1: the file has 10 bytes, but its chunks end at 8/,
    [within(100, { chunkSize: 5 }), chunk(200, 5, { chunkSize: 3 }), within(300)],
  ],
  [
    'chunks that end too early in the last file',
    /entry 0: the file has 10 bytes, but its chunks end at 5/,
    [within(100, { chunkSize: 5 })],
  ],
  [
    'a chunk outside its file',
    /entry 1: offset 300 lies outside its file's frames/,
    [apart(100, 300, { chunkSize: 5 }), chunk(300, 5)],
  ],
  [
    'a chunk where its file begins',
    /entry 1: offset 100 lies outside its file's frames/,
    [apart(100, 300, { chunkSize: 5 }), chunk(100, 5)],
  ],
  [
    'a chunk that lies before the last',
    /entry 2: offset 150 lies outside its file's frames/,
    [apart(100, 300, { chunkSize: 5 }), chunk(200, 5, { chunkSize: 2 }), chunk(150, 7)],
  ],
  [
    'a chunk that lies before its file',
    /entry 1: offset 50 lies before 100/,
    [within(100, { chunkSize: 5 }), chunk(50, 5)],
  ],
  [
    'a frame shared with nobody',
    /entry 0: innerOffset is given, but no file/,
    [within(100, { innerOffset: 5 })],
  ],
  [
    'a frame shared with another than the last',
    /entry 2: innerOffset is given, but no file/,
    [within(100), within(200), within(100, { innerOffset: 5 })],
  ],
  [
    'a chunk in another frame than the last',
    /entry 1: no file before it is at offset 150/,
    [within(100, { chunkSize: 5 }), chunk(150, 5, { innerOffset: 5 })],
  ],
  [
    'a size that its part of the blob cannot decode to',
    /100 bytes of the blob cannot decode to the 3276801 of content 0/,
    [within(100, { size: 100 * 2 ** 15 + 1 }), within(200)],
  ],
  [
    'sizes that add up to more than a number can count',
    /impossible sizes/,
    [within(100, { size: 2 ** 53 - 1 }), within(200, { size: 2 ** 53 - 1 })],
  ],
  [
    'a large file with a chunk that has no digest',
    /has a chunkDigest that is no sha256/,
    [within(100, { size: 33 * MIB, chunkSize: 16 * MIB }), chunk(200, 16 * MIB)],
  ],
];

for (const [what, message, entries] of REFUSED) {
  test(`refused: ${what}`, () => {
    throwsError(() => build(entries), 'metadata-malformed', message);
  });
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CutPoints, cutPoints, findCutPoint } from '../../../src/format/layer-table.js';
import { type ContentRow, tableOf } from '../../support/layer-tables.js';
import { seededRandom } from '../../support/random.js';
import { randomTocOnly } from '../../support/random-toc-only.js';

const SEEDS = 1000;

/** Each edge as blob offset, tar offset, content and chunk. */
function rowsOf({ count, blobAt, tarAt, row, chunk }: CutPoints): number[][] {
  return Array.from({ length: count }, (_, i) => [blobAt[i]!, tarAt[i]!, row[i]!, chunk[i]!]);
}

const APART: readonly ContentRow[] = [
  { name: 'a', blob: [100, 300], tarStart: 5000, sizeBytes: 20 },
  { name: 'b', blob: [310, 350], tarStart: 10_000, sizeBytes: 5 },
];

test('where gaps are frames of their own, every content begins and ends at an edge', () => {
  const table = tableOf(APART, 900, 20_000, { layout: 'separate-frames' });
  assert.deepEqual(rowsOf(cutPoints(table)), [
    [0, 0, -1, -1],
    [100, 5000, 0, -1],
    [300, 5020, -1, -1],
    [310, 10_000, 1, -1],
    [350, 10_005, -1, -1],
    [900, 20_000, -1, -1],
  ]);
});

test('where they are not, an edge is where a frame with a new content begins', () => {
  const rows: ContentRow[] = [
    { name: 'a', blob: [100, 300], tarStart: 5000, sizeBytes: 20 },
    { name: 'b', blob: [100, 300], tarStart: 9000, sizeBytes: 20 },
    { name: 'c', blob: [300, 900], tarStart: 14_000, sizeBytes: 20 },
  ];
  const table = tableOf(rows, 900, 20_000, { layout: 'shared-frames' });
  assert.deepEqual(rowsOf(cutPoints(table)), [
    [0, 0, -1, -1],
    [100, 5000, 0, -1],
    [300, 14_000, 2, -1],
    [900, 20_000, -1, -1],
  ]);
});

test('chunks with rows have edges, those in the frame of the chunk before them have none', () => {
  const chunks = [100, 150, 150, 200].map((blobStart, i) => ({ blobStart, tarStart: 5000 + i * 10 }));
  const row: ContentRow = { name: 'a', blob: [100, 300], tarStart: 5000, sizeBytes: 40, chunks };
  const table = tableOf([row], 300, 20_000, { layout: 'shared-frames' });
  assert.deepEqual(rowsOf(cutPoints(table)), [
    [0, 0, -1, -1],
    [100, 5000, 0, -1],
    [150, 5010, 0, 1],
    [200, 5030, 0, 3],
    [300, 20_000, -1, -1],
  ]);
});

test('a content that begins where the blob does, or where the last one ends, leaves no edge for the gap', () => {
  const rows: ContentRow[] = [
    { name: 'a', blob: [0, 300], tarStart: 5000, sizeBytes: 20 },
    { name: 'b', blob: [300, 350], tarStart: 10_000, sizeBytes: 5 },
  ];
  const table = tableOf(rows, 350, 20_000, { layout: 'separate-frames' });
  assert.deepEqual(rowsOf(cutPoints(table)), [
    [0, 5000, 0, -1],
    [300, 10_000, 1, -1],
    [350, 20_000, -1, -1],
  ]);
});

test('a layer without contents is one gap', () => {
  const table = tableOf([], 900, 20_000, { layout: 'separate-frames' });
  assert.deepEqual(rowsOf(cutPoints(table)), [
    [0, 0, -1, -1],
    [900, 20_000, -1, -1],
  ]);
  const nothing = tableOf([], 0, 1024, { layout: 'separate-frames' });
  assert.deepEqual(rowsOf(cutPoints(nothing)), [[0, 1024, -1, -1]]);
});

test('a range of a layer has the same cut points as the complete layer', () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed);
    const { want, edges: known } = randomTocOnly(random, [[]], { held: 0, resumed: 0, names: 20 });
    const whole = rowsOf(cutPoints(want.table));
    assert.deepEqual(
      whole.map(([blobAt]) => blobAt),
      known,
      `seed ${seed}`,
    );
    const start = random.int(0, known.length - 1);
    const end = random.int(start, known.length - 1);
    const part = rowsOf(cutPoints(want.table, known[start], known[end]));
    assert.deepEqual(
      part,
      whole.slice(start, end + 1),
      `seed ${seed}, from ${known[start]} to ${known[end]}`,
    );
  }
});

test('tar offsets ascend with the blob', () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seededRandom(seed);
    const { want } = randomTocOnly(random, [[]], { held: 0, resumed: 0, names: 20 });
    const rows = rowsOf(cutPoints(want.table));
    for (const [i, [blobAt, tarAt]] of rows.slice(1).entries()) {
      assert.ok(blobAt! > rows[i]![0]! && tarAt! >= rows[i]![1]!, `seed ${seed}`);
    }
  }
});

test('the cut points of a range cost no more than the range, however many chunks its content has', () => {
  const count = 500_000;
  const chunks = Array.from({ length: count }, (_, i) => ({ blobStart: i * 10, tarStart: i * 20 }));
  const row: ContentRow = { name: 'a', blob: [0, count * 10], tarStart: 0, sizeBytes: count * 20, chunks };
  const table = tableOf([row], count * 10, count * 20 + 1024, { layout: 'shared-frames' });
  const seen = new Set<string>();
  const chunkBlobStart = new Proxy(table.chunkBlobStart, {
    get: (rows, key) => {
      if (typeof key === 'string' && /^\d+$/.test(key)) seen.add(key);
      const value = Reflect.get(rows, key, rows) as unknown;
      return typeof value === 'function' ? value.bind(rows) : value;
    },
  });
  const middle = (count / 2) * 10;
  const edges = cutPoints({ ...table, chunkBlobStart }, middle, middle + 50);
  assert.deepEqual(
    [...edges.blobAt],
    [0, 10, 20, 30, 40, 50].map((at) => middle + at),
  );
  assert.ok(seen.size < 100, `${seen.size} chunks looked at`);
});

test('a range is cut where a content begins, or a chunk of one, and nowhere else', () => {
  const chunks = [
    { blobStart: 310, tarStart: 10_000 },
    { blobStart: 330, tarStart: 10_003 },
    { blobStart: 330, tarStart: 10_004 },
  ];
  const rows: ContentRow[] = [...APART.slice(0, 1), { ...APART[1]!, chunks }];
  const all = { blobStart: 0, blobEnd: 900 };
  const split = tableOf(rows, 900, 20_000);
  const places = [0, 100, 101, 310, 311, 331].map((at) => findCutPoint(split, all, at));
  assert.deepEqual(places, [
    { blobAt: 100, tarAt: 5000 },
    { blobAt: 100, tarAt: 5000 },
    { blobAt: 310, tarAt: 10_000 },
    { blobAt: 310, tarAt: 10_000 },
    { blobAt: 330, tarAt: 10_003 },
    undefined,
  ]);
  assert.equal(findCutPoint(split, { blobStart: 100, blobEnd: 310 }, 100), undefined);
  const apart = tableOf(rows, 900, 20_000, { layout: 'separate-frames' });
  assert.deepEqual(findCutPoint(apart, all, 101), { blobAt: 300, tarAt: 5020 });
  assert.equal(findCutPoint(apart, { blobStart: 310, blobEnd: 900 }, 351), undefined);
});

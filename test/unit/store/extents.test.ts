import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mergePairs } from '../../../src/format/arrays.js';
import {
  bytesOf,
  commonBytes,
  containingRun,
  ExtentList,
  overlapsRun,
  type Runs,
  sharedRuns,
} from '../../../src/store/extents.js';
import { newPackId } from '../../../src/store/paths.js';
import { seededRandom } from './support.js';

const A = newPackId();
const B = newPackId();

function listed(list: ExtentList): [string, number, number, number][] {
  return Array.from({ length: list.count }, (_, i) => [
    list.packAt(i),
    list.offsetAt(i),
    list.lengthAt(i),
    list.startAt(i),
  ]);
}

test('adjacent extents are merged, and empty ones ignored', () => {
  const list = new ExtentList();
  list.push(A, 10, 5);
  list.push(A, 15, 5);
  list.push(B, 99, 0);
  list.push(B, 20, 1);
  list.push(A, 21, 1);
  list.push(A, 20, 1);
  assert.deepEqual(listed(list), [
    [A, 10, 10, 0],
    [B, 20, 1, 10],
    [A, 21, 1, 11],
    [A, 20, 1, 12],
  ]);
  assert.equal(list.lengthBytes, 13);
  assert.deepEqual(list.packs, [A, B]);
});

/** The list as one entry a byte. */
function byteLabels(list: ExtentList): string[] {
  return listed(list).flatMap(([pack, offset, length]) =>
    Array.from({ length }, (_, i) => `${pack}:${offset + i}`),
  );
}

function randomList(): ExtentList {
  const random = seededRandom(3);
  const list = new ExtentList();
  for (let i = 0; i < 300; i++)
    list.push(random() < 0.5 ? A : B, Math.floor(random() * 50), Math.floor(random() * 4));
  return list;
}

test('a slice has the bytes of its range, whatever the range', () => {
  const list = randomList();
  const bytes = byteLabels(list);
  assert.equal(bytes.length, list.lengthBytes);
  for (let start = 0; start <= bytes.length; start += 7) {
    for (let end = start; end <= bytes.length; end += 31) {
      assert.deepEqual(byteLabels(list.slice(start, end)), bytes.slice(start, end), `[${start}, ${end})`);
    }
  }
  assert.deepEqual(byteLabels(list.slice(0, bytes.length)), bytes);
});

test('a slice beyond the list throws', () => {
  const list = randomList();
  for (const [start, end] of [
    [-1, 1],
    [2, 1],
    [0, list.lengthBytes + 1],
  ] as const) {
    assert.throws(() => list.slice(start, end), RangeError);
  }
});

test('a list can be sent to another thread and extended there', () => {
  const list = randomList();
  const copy = ExtentList.fromRows(structuredClone(list.toRows()));
  assert.deepEqual(listed(copy), listed(list));
  copy.append(list);
  assert.deepEqual(byteLabels(copy), [...byteLabels(list), ...byteLabels(list)]);
});

function runsOf(...pairs: number[]): Runs {
  return mergePairs(Float64Array.from(pairs));
}

/** Runs as one number a byte: how many of the lists have it. */
function depths(lists: readonly Runs[], bytes: number): number[] {
  const depth = new Array<number>(bytes).fill(0);
  for (const runs of lists)
    for (let i = 0; i < runs.length; i += 2) for (let at = runs[i]!; at < runs[i + 1]!; at++) depth[at]! += 1;
  return depth;
}

test('runs that overlap or touch are merged, in order', () => {
  assert.deepEqual([...runsOf(10, 20, 0, 5, 5, 7, 15, 30, 16, 18)], [0, 7, 10, 30]);
  assert.deepEqual([...runsOf()], []);
  assert.equal(bytesOf(runsOf(0, 5, 3, 10)), 10);
});

test('shared and common bytes match a count of single bytes', () => {
  const random = seededRandom(1);
  const number = (most: number) => Math.floor(random() * most);
  for (let round = 0; round < 200; round++) {
    const lists = Array.from({ length: 1 + number(4) }, () =>
      runsOf(
        ...Array.from({ length: number(6) }, () => number(80)).flatMap((at) => [at, at + 1 + number(20)]),
      ),
    );
    const shared = sharedRuns(lists);
    const expected = depths(lists, 100).map((depth) => Number(depth > 1));
    assert.deepEqual(depths([shared], 100), expected, `round ${round}`);
    const both = depths(lists.slice(0, 2), 100).filter((depth) => depth > 1).length;
    assert.equal(commonBytes(lists[0]!, lists[1] ?? runsOf()), both, `round ${round}`);
  }
});

test('a run contains ranges within it', () => {
  const runs = runsOf(10, 20, 30, 40);
  for (const [start, end, row] of [
    [10, 20, 0],
    [12, 13, 0],
    [30, 40, 1],
    [9, 11, -1],
    [19, 21, -1],
    [20, 30, -1],
    [39, 41, -1],
    [0, 5, -1],
  ] as const) {
    assert.equal(containingRun(runs, start, end), row, `${start} ${end}`);
  }
});

test('a run overlaps ranges with one of its bytes', () => {
  const runs = runsOf(10, 20, 30, 40);
  const touching = [9, 10, 19, 20, 29, 30, 39, 40].filter((at) => overlapsRun(runs, at, at + 1));
  assert.deepEqual(touching, [10, 19, 30, 39]);
  assert.deepEqual(
    [overlapsRun(runs, 20, 30), overlapsRun(runs, 5, 11), overlapsRun(runsOf(), 0, 9)],
    [false, true, false],
  );
});

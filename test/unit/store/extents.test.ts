import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExtentList } from '../../../src/store/extents.js';
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
function bytesOf(list: ExtentList): string[] {
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
  const bytes = bytesOf(list);
  assert.equal(bytes.length, list.lengthBytes);
  for (let start = 0; start <= bytes.length; start += 7) {
    for (let end = start; end <= bytes.length; end += 31) {
      assert.deepEqual(bytesOf(list.slice(start, end)), bytes.slice(start, end), `[${start}, ${end})`);
    }
  }
  assert.deepEqual(bytesOf(list.slice(0, bytes.length)), bytes);
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
  assert.deepEqual(bytesOf(copy), [...bytesOf(list), ...bytesOf(list)]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SEGMENT, type Segments } from '../../../src/plan/plan.js';
import { LayerAssembly } from '../../../src/pull/chunked-layers.js';
import { ExtentList } from '../../../src/store/extents.js';
import type { PackId } from '../../../src/store/paths.js';

const PACKS = ['a', 'b'].map((letter) => letter.repeat(32) as PackId);
const [A, B] = PACKS as [PackId, PackId];

type Row = readonly [kind: keyof typeof SEGMENT, lengthBytes: number, source?: number, sourceOffset?: number];

function segmentsOf(rows: readonly Row[]): Segments {
  const tarStart = new Float64Array(rows.length + 1);
  for (const [i, [, lengthBytes]] of rows.entries()) tarStart[i + 1] = tarStart[i]! + lengthBytes;
  return {
    count: rows.length,
    kind: Uint8Array.from(rows, ([kind]) => SEGMENT[kind]),
    tarStart,
    source: Int32Array.from(rows, ([, , source = -1]) => source),
    sourceOffset: Float64Array.from(rows, ([, , , offset = 0]) => offset),
    lengthBytes: Float64Array.from(rows, ([, lengthBytes]) => lengthBytes),
  };
}

function rowsOf(extents: ExtentList): Array<[PackId, number, number]> {
  return Array.from({ length: extents.count }, (_, i) => [
    extents.packAt(i),
    extents.offsetAt(i),
    extents.lengthAt(i),
  ]);
}

test('cached segments are before the front at once; adjacent ones become one extent', () => {
  const layer = new LayerAssembly(
    segmentsOf([
      ['cached', 10, 0, 100],
      ['cached', 5, 0, 110],
      ['cached', 7, 1, 0],
    ]),
    PACKS,
  );
  const grown = layer.advance([layer]);
  assert.deepEqual(rowsOf(grown), [
    [A, 100, 15],
    [B, 0, 7],
  ]);
  assert.equal(layer.front, 22);
  assert.ok(layer.complete);
  assert.equal(layer.advance([layer]).count, 0);
});

test('a span is before the front when all of it is on disk, and later spans wait for earlier ones', () => {
  const layer = new LayerAssembly(
    segmentsOf([
      ['span', 10, 4],
      ['span', 20, 5],
    ]),
    PACKS,
  );
  layer.placeSpanPart(5, { pack: B, packOffset: 0, lengthBytes: 20 }, true);
  assert.equal(layer.advance([layer]).count, 0);
  layer.placeSpanPart(4, { pack: A, packOffset: 0, lengthBytes: 6 }, false);
  assert.equal(layer.advance([layer]).count, 0);
  layer.placeSpanPart(4, { pack: A, packOffset: 50, lengthBytes: 4 }, true);
  assert.deepEqual(rowsOf(layer.advance([layer])), [
    [A, 0, 6],
    [A, 50, 4],
    [B, 0, 20],
  ]);
  assert.ok(layer.complete);
});

test('inline segments lie one after the other in their run', () => {
  const layer = new LayerAssembly(
    segmentsOf([
      ['inline', 3],
      ['cached', 10, 0, 0],
      ['inline', 4],
    ]),
    PACKS,
  );
  assert.deepEqual([...layer.inlineRanges()], [0, 3, 13, 17]);
  assert.equal(layer.advance([layer]).count, 0);
  layer.placeInline({ pack: B, packOffset: 1000, lengthBytes: 7 });
  assert.deepEqual(rowsOf(layer.advance([layer])), [
    [B, 1000, 3],
    [A, 0, 10],
    [B, 1003, 4],
  ]);
});

test('a copy waits until the front of the layer it copies has passed it', () => {
  const first = new LayerAssembly(
    segmentsOf([
      ['span', 10, 0],
      ['span', 10, 1],
    ]),
    PACKS,
  );
  const second = new LayerAssembly(segmentsOf([['copy', 8, 0, 6]]), PACKS);
  const layers = [first, second];
  first.placeSpanPart(0, { pack: A, packOffset: 0, lengthBytes: 10 }, true);
  first.advance(layers);
  assert.equal(second.advance(layers).count, 0);
  first.placeSpanPart(1, { pack: B, packOffset: 70, lengthBytes: 10 }, true);
  first.advance(layers);
  assert.deepEqual(rowsOf(second.advance(layers)), [
    [A, 6, 4],
    [B, 70, 4],
  ]);
  assert.ok(second.complete);
});

test('a copy from an earlier offset of the same layer needs no second call', () => {
  const layer = new LayerAssembly(
    segmentsOf([
      ['cached', 10, 0, 0],
      ['cached', 5, 1, 30],
      ['copy', 10, 0, 0],
    ]),
    PACKS,
  );
  assert.deepEqual(rowsOf(layer.advance([layer])), [
    [A, 0, 10],
    [B, 30, 5],
    [A, 0, 10],
  ]);
});

test('a layer without segments is complete from the start', () => {
  const layer = new LayerAssembly(segmentsOf([]), PACKS);
  assert.ok(layer.complete);
  assert.equal(layer.front, 0);
  assert.equal(layer.inlineRanges().length, 0);
});

test('a span without tar-split can be shorter than what is allotted to it', () => {
  const layer = new LayerAssembly(
    segmentsOf([
      ['span', 4096, 0],
      ['cached', 10, 1, 5],
    ]),
    PACKS,
  );
  layer.placeSpanPart(0, { pack: A, packOffset: 0, lengthBytes: 512 }, true);
  assert.deepEqual(rowsOf(layer.advance([layer])), [
    [A, 0, 512],
    [B, 5, 10],
  ]);
  assert.equal(layer.front, 522);
});

test('bytes received with the metadata come after the last segment', () => {
  const layer = new LayerAssembly(segmentsOf([['span', 10, 0]]), PACKS, {
    pack: B,
    packOffset: 7,
    lengthBytes: 3,
  });
  assert.equal(layer.advance([layer]).count, 0);
  layer.placeSpanPart(0, { pack: A, packOffset: 0, lengthBytes: 10 }, true);
  assert.ok(!layer.complete);
  assert.deepEqual(rowsOf(layer.advance([layer])), [
    [A, 0, 10],
    [B, 7, 3],
  ]);
  assert.ok(layer.complete);
});

test('a layer whose extents were replaced is complete, and others copy from them', () => {
  const first = new LayerAssembly(segmentsOf([['span', 10, 0]]), PACKS);
  const second = new LayerAssembly(segmentsOf([['copy', 4, 0, 3]]), PACKS);
  const third = new LayerAssembly(segmentsOf([['copy', 4, 0, 9]]), PACKS);
  const extents = new ExtentList();
  extents.push(B, 100, 10);
  first.replace(extents);
  assert.ok(first.complete);
  assert.deepEqual(rowsOf(second.advance([first, second, third])), [[B, 103, 4]]);
  assert.throws(() => third.advance([first, second, third]), { code: 'digest-mismatch' });
});

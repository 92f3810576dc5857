import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DIGEST_BYTES } from '../../../src/format/digest.js';
import { allocateTable } from '../../../src/format/layer-table.js';
import { findFirstOccurrences } from '../../../src/plan/plan.js';
import { seededRandom } from '../../support/random.js';

/** A table with the digests that `fill` writes; nothing else in it matters here. */
function tableOfDigests(count: number, fill: (digest: Uint8Array, row: number) => void) {
  const table = allocateTable({ count, chunks: 0, dataEnd: 0, tarBytes: 0 });
  for (let row = 0; row < count; row++) {
    fill(table.digests.subarray(row * DIGEST_BYTES, (row + 1) * DIGEST_BYTES), row);
    table.sizeBytes[row] = 5;
  }
  return table;
}

test('every later occurrence points at the first, over all layers', () => {
  const random = seededRandom(3);
  const names = Array.from({ length: 5000 }, () => random.int(0, 2000));
  const fill = (digest: Uint8Array, name: number) => {
    for (let i = 0; i < DIGEST_BYTES; i++) digest[i] = (Math.imul(name + 1, 0x9e3779b1 + i * 2) >>> 13) & 255;
    digest[9] = name & 255;
    digest[10] = name >> 8;
  };
  const tables = [0, 2000, 2000].map((start, i) =>
    tableOfDigests([2000, 0, 3000][i]!, (digest, row) => fill(digest, names[start + row]!)),
  );
  const found = findFirstOccurrences(tables);
  for (const [at, name] of names.entries()) {
    const [layer, row] = at < 2000 ? [0, at] : [2, at - 2000];
    const first = names.indexOf(name);
    assert.equal(found[layer]!.layer[row], first === at ? -1 : first < 2000 ? 0 : 2);
    if (first !== at) assert.equal(found[layer]!.row[row], first < 2000 ? first : first - 2000);
  }
});

test('digests forged to share their first bytes end the look-up early and are still right', () => {
  const table = tableOfDigests(20_000, (digest, row) => {
    new DataView(digest.buffer, digest.byteOffset).setUint32(20, row >> 1);
  });
  const [found] = findFirstOccurrences([table]);
  let pairs = 0;
  for (let row = 0; row < table.count; row++) {
    if (found!.layer[row] === -1) continue;
    assert.equal(found!.row[row], row - 1);
    pairs++;
  }
  // Only the first few find a slot; for the others nothing is known, and nothing is wrong.
  assert.ok(pairs > 0 && pairs <= 128, `${pairs}`);
});

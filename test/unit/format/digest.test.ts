import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DigestTable } from '../../../src/format/digest.js';
import { seededRandom, sha256 } from '../store/support.js';

test('rows are found as in a Map, by digest and number', () => {
  const random = seededRandom(1);
  const pick = () => ({
    digest: sha256(String(Math.floor(random() * 3000))),
    number: Math.floor(random() * 3),
  });
  const rows = Array.from({ length: 4000 }, pick);
  const table = new DigestTable(
    Buffer.concat(rows.map(({ digest }) => digest)),
    Float64Array.from(rows, ({ number }) => number),
  );
  const model = new Map<string, number>();
  rows.forEach(({ digest, number }, row) => {
    const key = `${digest.toString('hex')} ${number}`;
    if (!model.has(key)) model.set(key, row);
    assert.equal(table.firstRow[row], model.get(key));
  });
  for (let i = 0; i < 4000; i++) {
    const { digest, number } = pick();
    const bytes = Buffer.concat([Buffer.from('padding'), digest]);
    assert.equal(table.find(bytes, 7, number), model.get(`${digest.toString('hex')} ${number}`) ?? -1);
  }
});

test('an empty table finds nothing', () => {
  assert.equal(new DigestTable(new Uint8Array(0), new Float64Array(0)).find(sha256('x'), 0, 1), -1);
});

test('invented digests that all want one slot cost a bounded number of looks', () => {
  const count = 20_000;
  const digests = Buffer.alloc(count * 32);
  for (let row = 0; row < count; row++) digests.writeUInt32LE(row, row * 32 + 28);
  const table = new DigestTable(digests, new Float64Array(count).fill(1));
  const found = table.firstRow.filter((row) => row >= 0).length;
  assert.equal(found, 128);
  assert.equal(table.find(digests, 5 * 32, 1), 5);
  assert.equal(table.find(digests, 500 * 32, 1), -1);
});

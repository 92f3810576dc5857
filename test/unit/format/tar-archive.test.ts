import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planArchive } from '../../../src/format/tar-archive.js';
import { listTar } from '../../support/listing.js';
import { tarOf } from '../../support/tars.js';

test('headers and contents put into their places are a tar', () => {
  const contents = [Buffer.from('a'), Buffer.alloc(0), Buffer.alloc(1024, 'b'), Buffer.alloc(513, 'c')];
  const names = contents.map((_, row) => `${'long/'.repeat(row * 30)}name`);
  const plan = planArchive(contents.map(({ length }, row) => ({ name: names[row]!, sizeBytes: length })));
  const file = Buffer.alloc(plan.sizeBytes);
  for (const [row, { header, headerStart, contentStart }] of plan.members.entries()) {
    header.copy(file, headerStart);
    contents[row]!.copy(file, contentStart);
  }
  const expected = tarOf(
    ...contents.map((content, row) => ({ name: names[row]!, content, mode: 0o444, mtimeSeconds: 0 })),
  );
  assert.deepEqual(listTar(file), listTar(expected));
  assert.equal(file.length, expected.length);
});

test('a member of 8 GiB and more has its place', () => {
  const sizeBytes = 2 ** 33 + 1;
  const { members, sizeBytes: whole } = planArchive([
    { name: 'huge', sizeBytes },
    { name: 'next', sizeBytes: 1 },
  ]);
  assert.equal(members[1]!.headerStart % 512, 0);
  assert.ok(members[1]!.headerStart >= members[0]!.contentStart + sizeBytes);
  assert.equal(whole, members[1]!.contentStart + 512 + 1024);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TarEntry } from '../../../src/format/tar-header.js';
import { planArchive, TAR_END, type TarItem, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import { TarReader } from '../../../src/sandbox/tar-reader.js';
import { listTar } from '../../support/listing.js';
import { tarOf } from '../../support/tars.js';

const FILE: TarItem = {
  type: '0',
  name: 'etc/file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  mtimeSeconds: 1,
  mtimeNanos: 0,
};

function readBack(item: TarItem): TarEntry {
  const entries: TarEntry[] = [];
  const reader = new TarReader({
    entry: (entry) => entries.push(entry),
    content: () => assert.fail('a header has no content'),
    trailer: () => {},
  });
  reader.push(tarHeader(item));
  assert.equal(entries.length, 1);
  return entries[0]!;
}

test('a name of any length comes back, with a pax header only where ustar has no room', () => {
  const dir = 'd'.repeat(150);
  const cases: [name: string, blocks: number][] = [
    ['n'.repeat(100), 1],
    ['n'.repeat(101), 3],
    [`${dir}/${'n'.repeat(100)}`, 1],
    [`${dir}/${'n'.repeat(101)}`, 3],
    [`${'d'.repeat(156)}/n`, 3],
    [`${'d'.repeat(155)}/n`, 1],
    [`${'d'.repeat(120)}/`, 3],
    [`a/${'d'.repeat(120)}/${'e'.repeat(40)}/`, 1],
    [`/${'n'.repeat(100)}`, 3],
    ['é'.repeat(60), 3],
    [`${'long/'.repeat(120)}n`, 4],
  ];
  for (const [name, blocks] of cases) {
    assert.equal(readBack({ ...FILE, name }).name.toString(), name);
    assert.equal(tarHeader({ ...FILE, name }).length, blocks * 512, name);
  }
});

test('a name that is not UTF-8 comes back byte by byte, short or long', () => {
  for (const name of [Buffer.from([0x63, 0xe9]), Buffer.alloc(300, 0xe9)]) {
    assert.deepEqual(readBack({ ...FILE, name }).name, name);
  }
});

test('long link targets, large ids, sizes and fractions of a second come back', () => {
  const linkName = 't'.repeat(160);
  assert.equal(readBack({ ...FILE, type: '2', linkName }).linkName.toString(), linkName);
  const large = readBack({ ...FILE, uid: 3_000_000_000, gid: 0o10000000, sizeBytes: 2 ** 33 });
  assert.deepEqual([large.uid, large.gid, large.sizeBytes], [3_000_000_000, 0o10000000, 2 ** 33]);
  const { mtime } = readBack({ ...FILE, mtimeSeconds: 5, mtimeNanos: 120_000_000 });
  assert.deepEqual(mtime, { seconds: 5, nanos: 120_000_000 });
});

test('times before 1970 come back, with and without a fraction', () => {
  for (const mtime of [
    { seconds: -1, nanos: 0 },
    { seconds: -2, nanos: 250_000_000 },
    { seconds: -1, nanos: 1 },
  ]) {
    const item = { ...FILE, mtimeSeconds: mtime.seconds, mtimeNanos: mtime.nanos };
    assert.deepEqual(readBack(item).mtime, mtime);
  }
});

test('device numbers come back', () => {
  const { devMajor, devMinor } = readBack({ ...FILE, type: '3', devMajor: 8, devMinor: 17 });
  assert.deepEqual([devMajor, devMinor], [8, 17]);
});

test('padding ends at the next block and the end is two empty blocks', () => {
  assert.deepEqual(
    [0, 1, 511, 512, 513].map((size) => tarPadding(size).length),
    [0, 511, 1, 0, 511],
  );
  assert.deepEqual(TAR_END, Buffer.alloc(1024));
});

test('a pax record whose length gains a digit by counting itself is right', () => {
  for (let length = 101; length < 1100; length += 1) {
    const name = 'n'.repeat(length);
    assert.equal(readBack({ ...FILE, name }).name.length, length);
  }
});

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

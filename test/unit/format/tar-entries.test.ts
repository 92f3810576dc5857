import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decompress } from '@mongodb-js/zstd';
import { PullError } from '../../../src/format/error.js';
import { tarEntries, tarSpans } from '../../../src/format/tar-entries.js';
import type { TarEntry } from '../../../src/format/tar-header.js';
import { paxRecord, sparseHeader, TAR_END, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import { TarReader } from '../../../src/sandbox/tar-reader.js';
import { fixtureBlob, LAYER_DIGEST } from '../../support/fixture-layout.js';
import { editedHeader, sourceOf, tarOf } from '../../support/tars.js';

function walk(tar: Buffer) {
  return [...tarEntries(sourceOf(tar))];
}

/** What the reader that sees every byte says. */
function readThrough(tar: Buffer): Array<{ entry: TarEntry; content: Buffer }> {
  const entries: Array<{ entry: TarEntry; content: Buffer }> = [];
  const reader = new TarReader({
    entry: (entry) => entries.push({ entry, content: Buffer.alloc(0) }),
    content: (bytes) => {
      entries.at(-1)!.content = Buffer.concat([entries.at(-1)!.content, bytes]);
    },
    trailer: () => {},
  });
  reader.push(tar);
  reader.end();
  return entries;
}

test("the entries of another program's layer are those of a reader that sees every byte", async () => {
  const tar = await decompress(fixtureBlob(LAYER_DIGEST));
  const walked = walk(tar).map(({ entry, contentStart, contentBytes }) => ({
    entry,
    content: tar.subarray(contentStart, contentStart + contentBytes),
  }));
  assert.ok(walked.length > 20);
  assert.deepEqual(walked, readThrough(tar));
});

test('long names, long links and pax records are those of the next entry only', () => {
  const long = `${'d/'.repeat(200)}file`;
  const walked = walk(tarOf({ name: long, content: 'x' }, { name: 'short', uid: 2 ** 30 }, { name: 'last' }));
  assert.deepEqual(
    walked.map(({ entry: { name, uid } }) => [name.toString(), uid]),
    [
      [long, 0],
      ['short', 2 ** 30],
      ['last', 0],
    ],
  );
});

test('a tar may end without its two blocks of zeros, and anything may follow them', () => {
  const tar = tarOf({ name: 'a', content: 'abc' });
  const bare = tar.subarray(0, tar.length - TAR_END.length);
  for (const each of [tar, bare, Buffer.concat([tar, Buffer.alloc(512, 1)])])
    assert.equal(walk(each).length, 1);
  assert.deepEqual(walk(Buffer.alloc(0)), []);
});

test('what is no tar is refused', () => {
  const tar = tarOf({ name: 'a', content: 'x'.repeat(600) }, { name: 'b' });
  const wrongSum = Buffer.from(tar);
  wrongSum[0]! ^= 1;
  const hugeMeta = tarOf({ name: 'x'.repeat(300) });
  hugeMeta.write('77777777777', 124, 'latin1');
  for (const bad of [
    wrongSum,
    tar.subarray(0, 700),
    tar.subarray(0, 100),
    Buffer.concat([tar.subarray(0, 1536), Buffer.alloc(512), tar.subarray(1536)]),
    hugeMeta,
  ]) {
    assert.throws(() => walk(bad), { code: 'metadata-malformed' });
  }
});

test("a sparse file's type is GNU's: not of other headers", () => {
  const tar = tarOf({ name: 'a', type: 'S' as '0' });
  assert.throws(() => walk(tar), { code: 'unsupported', message: /sparse.*in the entry "a"/ });
});

/** A header of Go before 1.8: GNU's magic over the fields of ustar. */
function goHeader(prefix: string): TarEntry {
  const block = editedHeader(tarOf({ name: 'base' }).subarray(0, 512), { 257: 'ustar  \0', 345: prefix });
  return walk(Buffer.concat([block, TAR_END]))[0]!.entry;
}

test("what is no time of access behind GNU's magic is the prefix that old Go programs wrote", () => {
  for (const prefix of [
    'usr/lib',
    '2017',
    '1',
    '77777777777',
    'a'.repeat(155),
    '20170504123/x',
    '00000000000/11111111111',
    '77777777777x',
    ' usr',
    'caf\xc3\xa9',
    '\xe9t\xe9',
  ])
    assert.equal(
      goHeader(prefix).name.toString('latin1'),
      prefix === '77777777777' ? 'base' : `${Buffer.from(prefix).toString('latin1')}/base`,
    );
  assert.deepEqual(goHeader('00000000012\0').atime, { seconds: 10, nanos: 0 });
  assert.equal(goHeader('00000000012\x0000000000013\0').name.toString(), 'base');
});

test('a time of an extended header may have as many digits as a number of a header can', () => {
  const tar = tarOf({ name: 'a', records: paxRecord('mtime', '-99999999999999.5') });
  assert.deepEqual(walk(tar)[0]!.entry.mtime, { seconds: -(10 ** 14), nanos: 500_000_000 });
});

test('user and group IDs have 32 bits, as the system takes them', () => {
  const ids = (uid: string, gid: string) => {
    const records = Buffer.concat([paxRecord('uid', uid), paxRecord('gid', gid)]);
    const { entry } = walk(tarOf({ name: 'a', records }))[0]!;
    return [entry.uid, entry.gid];
  };
  assert.deepEqual(ids('-2', '-1'), [2 ** 32 - 2, 2 ** 32 - 1]);
  assert.deepEqual(ids('4294967296', '4294967301'), [0, 5]);
  assert.deepEqual(ids('9223372036854775807', '-9223372036854775808'), [2 ** 32 - 1, 0]);
  for (const bad of ['1x', '', ' 1', '1.5', '0x10', '99999999999999999999'])
    if (bad !== '')
      assert.throws(() => ids(bad, '0'), { code: 'metadata-malformed', message: /in the entry "a"/ });
  const field = (hex: string) => {
    const block = editedHeader(tarOf({ name: 'a' }).subarray(0, 512), { 108: Buffer.from(hex, 'hex') });
    return walk(Buffer.concat([block, TAR_END]))[0]!.entry.uid;
  };
  assert.deepEqual(['fffffffffffffffe', '8000000100000007', 'bfffffffffffffff'].map(field), [
    2 ** 32 - 2,
    7,
    2 ** 32 - 1,
  ]);
});

test('an error says which entry it is about, or where in the tar', () => {
  const tar = tarOf({ name: 'first', content: 'x' }, { name: 'second', records: paxRecord('mtime', 'x') });
  assert.throws(() => walk(tar), { message: /a time in it is malformed, in the entry "second"$/ });
  const wrong = tarOf({ name: 'first', content: 'x' }, { name: 'second' });
  wrong[1024 + 110]! ^= 1;
  assert.throws(() => walk(wrong), { message: /at byte 1024 of the tar$/ });
  const noNumber = editedHeader(tarOf({ name: 'second' }).subarray(0, 512), { 108: 'zzzzzzz' });
  const behind = Buffer.concat([tar.subarray(0, 1024), noNumber, TAR_END]);
  assert.throws(() => walk(behind), {
    message: /a number .* at byte 1024 of the tar, in the entry "second"$/,
  });
  assert.throws(() => walk(behind.subarray(0, 1030)), { message: /at byte 1024 of the tar$/ });
  assert.throws(() => walk(tarOf({ name: 'a', content: 'x'.repeat(600) }).subarray(0, 1000)), {
    message: /in the entry "a"$/,
  });
});

test('a global pax header is no entry', () => {
  const tar = tarOf(
    { name: 'pax_global_header', type: 'g' as '0', content: '13 comment=x\n' },
    { name: 'a' },
  );
  assert.deepEqual(
    walk(tar).map(({ entry }) => entry.name.toString()),
    ['a'],
  );
});

const TIMES = { mtimeSeconds: 1_700_000_000, mtimeNanos: 0 };
const COMMON = { mode: 0o644, uid: 0, gid: 0, ...TIMES };

function fileOf(name: string, bytes: Buffer): Buffer {
  const header = tarHeader({ type: '0', name, sizeBytes: bytes.length, ...COMMON });
  return Buffer.concat([header, bytes, tarPadding(bytes.length)]);
}

function directoryOf(name: string): Buffer {
  return tarHeader({ type: '5', name, sizeBytes: 0, ...COMMON });
}

function spansOf(tar: Buffer): { path: string; start: number; end: number }[] {
  return [...tarSpans((start, length) => tar.subarray(start, start + length), tar.length)];
}

test('every entry has its headers, its content and its padding', () => {
  const parts = [directoryOf('d/'), fileOf('d/a', Buffer.from('x')), fileOf('d/b', Buffer.alloc(512))];
  assert.deepEqual(spansOf(Buffer.concat([...parts, TAR_END])), [
    { path: 'd/', start: 0, end: 512 },
    { path: 'd/a', start: 512, end: 1536 },
    { path: 'd/b', start: 1536, end: 2560 },
  ]);
});

test('a long name counts with its extended header to its entry', () => {
  const long = `${'p'.repeat(120)}/${'ü'.repeat(80)}`;
  const tar = Buffer.concat([fileOf(long, Buffer.from('x')), fileOf('b', Buffer.alloc(1)), TAR_END]);
  const [first, second] = spansOf(tar);
  assert.deepEqual([first!.path, first!.start], [long, 0]);
  assert.deepEqual([second!.path, second!.start], ['b', first!.end]);
});

test('entries end at a malformed header, at missing bytes and at the end of the tar', () => {
  const tar = Buffer.concat([fileOf('a', Buffer.alloc(1)), fileOf('b', Buffer.alloc(1))]);
  assert.deepEqual(
    spansOf(tar).map(({ path }) => path),
    ['a', 'b'],
  );
  const changed = Buffer.from(tar);
  changed[1024]! ^= 1;
  assert.deepEqual(
    spansOf(changed).map(({ path }) => path),
    ['a'],
  );
  assert.deepEqual([...tarSpans(() => undefined, tar.length)], []);
  assert.deepEqual(
    spansOf(tar.subarray(0, 1536)).map(({ path }) => path),
    ['a'],
  );
});

test('bytes that cannot be read are no end of the tar', () => {
  const failure = new PullError('store-broken', 'could not read the pack: EIO');
  const read = () => {
    throw failure;
  };
  assert.throws(() => [...tarSpans(read, 1024)], failure);
});

test('a sparse file has its own name, and the blocks of its map', () => {
  const header = tarHeader({ type: '0', name: 'old', sizeBytes: 5, ...COMMON });
  const old = editedHeader(header, { 156: 'S', 257: 'ustar  \0', 482: '\x01' });
  const more = Buffer.alloc(1024);
  more[504] = 1;
  const sparse = sparseHeader(
    { type: '0', name: 'd/new', sizeBytes: 0, ...COMMON },
    new Float64Array(),
    1000,
  );
  const tar = Buffer.concat([
    old,
    more,
    Buffer.from('sheep'),
    tarPadding(5),
    sparse,
    fileOf('b', Buffer.alloc(1)),
  ]);
  assert.deepEqual(
    spansOf(tar).map(({ path, end }) => [path, end]),
    [
      ['old', 2048],
      ['d/new', 2048 + sparse.length],
      ['b', tar.length],
    ],
  );
});

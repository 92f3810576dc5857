import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TarEntry } from '../../../src/format/tar-header.js';
import { TAR_END, type TarItem, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import { TarReader } from '../../../src/sandbox/tar-reader.js';
import { cutUp } from '../../support/chunked-layers.js';
import { editedHeader } from '../../support/tars.js';

const FILE: TarItem = {
  type: '0',
  name: 'f',
  mode: 0o644,
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  mtimeSeconds: 1,
  mtimeNanos: 0,
};

interface Read {
  readonly entries: TarEntry[];
  readonly contents: string[];
  readonly raw: Buffer[];
}

function read(pieces: readonly Buffer[]): Read {
  const result: Read = { entries: [], contents: [], raw: [] };
  const reader = new TarReader({
    entry(entry, _contentBytes, raw) {
      result.entries.push(entry);
      result.contents.push('');
      result.raw.push(raw);
    },
    content(bytes) {
      result.contents.push(result.contents.pop()! + bytes.toString('latin1'));
    },
    trailer: (raw) => result.raw.push(raw),
  });
  for (const piece of pieces) reader.push(piece);
  reader.end();
  return result;
}

function file(name: string, content: string): Buffer {
  const header = tarHeader({ ...FILE, name, sizeBytes: content.length });
  return Buffer.concat([header, Buffer.from(content), tarPadding(content.length)]);
}

const LONG_NAME = 'directory/'.repeat(30);
const TAR = Buffer.concat([
  file('one', 'first'),
  file(`${LONG_NAME}file`, 'x'.repeat(512)),
  tarHeader({ ...FILE, type: '5', name: 'dir/' }),
  file('last', 'y'.repeat(700)),
  TAR_END,
]);

test('entries, contents and raw bytes do not depend on where the tar is cut', () => {
  const whole = read([TAR]);
  assert.deepEqual(whole.contents, ['first', 'x'.repeat(512), '', 'y'.repeat(700)]);
  for (const pieceBytes of [1, 100, 511, 512, 513, 1024]) {
    assert.deepEqual(read(cutUp(TAR, pieceBytes)), whole, `in pieces of ${pieceBytes}`);
  }
});

test('raw bytes start with the padding of the previous content and end with two blocks of zeros', () => {
  const { raw } = read([TAR]);
  const padding = 512 - 5;
  assert.deepEqual(
    raw.map((bytes) => bytes.length),
    [512, padding + 3 * 512, 512, 512, 1024 - 700 + 1024],
  );
});

test('bytes after the end come in pieces of a mebibyte', () => {
  const { raw } = read(cutUp(Buffer.concat([TAR, Buffer.alloc(2 ** 20 + 512)]), 1000));
  assert.deepEqual(
    raw.slice(-2).map((bytes) => bytes.length),
    [2 ** 20, 512],
  );
});

test('GNU long names, base-256 numbers and times of access are read', () => {
  const longName = 'n'.repeat(200);
  const body = Buffer.from(`${longName}\0`);
  const gnu = { 257: 'ustar  \0', 108: Buffer.from([0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]) };
  const back = Buffer.alloc(12, 0xff);
  const meta = editedHeader(tarHeader({ ...FILE, type: '1', sizeBytes: body.length }), { 156: 'L' });
  const header = editedHeader(tarHeader(FILE), { ...gnu, 136: back, 345: '00000000012\0' });
  const { entries } = read([meta, body, tarPadding(body.length), header, TAR_END]);
  const [entry] = entries;
  assert.equal(entry!.name.toString(), longName);
  assert.equal(entry!.uid, 2 ** 32 - 1);
  assert.equal(entry!.mtime.seconds, -1);
  assert.deepEqual([entry!.atime, entry!.ctime], [{ seconds: 10, nanos: 0 }, undefined]);
});

test('an archive may end without its two blocks of zeros, or after one', () => {
  assert.equal(read([file('a', 'abc')]).entries.length, 1);
  assert.equal(read([file('a', 'abc'), Buffer.alloc(512)]).raw.at(-1)!.length, 509 + 512);
});

test('a file of the time before POSIX is a file, or a directory if it ends in a slash', () => {
  const types = (name: string) =>
    read([editedHeader(tarHeader({ ...FILE, name }), { 156: '\0' })]).entries[0]!.type;
  assert.deepEqual([types('a'), types('a/')], ['0', '5']);
});

test('a malformed tar is refused', () => {
  const malformed = { name: 'PullError', code: 'metadata-malformed' };
  const bad = Buffer.from(tarHeader(FILE));
  bad[0] = 0x67;
  assert.throws(() => read([bad]), malformed);
  assert.throws(() => read([TAR.subarray(0, 300)]), malformed);
  assert.throws(() => read([TAR.subarray(0, 514)]), malformed);
  assert.throws(() => read([Buffer.alloc(512), tarHeader(FILE)]), malformed);
  assert.throws(() => read([editedHeader(tarHeader(FILE), { 124: '9' })]), malformed);
  assert.throws(() => read([editedHeader(tarHeader(FILE), { 124: Buffer.alloc(12, 0xff) })]), malformed);
  assert.throws(
    () => read([editedHeader(tarHeader({ ...FILE, sizeBytes: 2 ** 21 }), { 156: 'x' })]),
    malformed,
  );
});

test('pax records that do not add up are refused, and sparse files too', () => {
  const pax = (body: string) => [
    editedHeader(tarHeader({ ...FILE, sizeBytes: body.length }), { 156: 'x' }),
    Buffer.from(body),
    tarPadding(body.length),
    tarHeader(FILE),
  ];
  assert.equal(read(pax('13 comment=x\n')).entries.length, 1);
  assert.equal(read(pax('9 path=a\n')).entries[0]!.name.toString(), 'a');
  assert.equal(read(pax('8 path=\n')).entries[0]!.name.toString(), 'f');
  for (const body of [
    '99 path=a\n',
    '8 path=a\n',
    '9 path a\n',
    'path=a\n',
    '7 =bcd\n',
    '9 uid=1x\n',
    '11 size=-1\n',
  ]) {
    assert.throws(() => read(pax(body)), { code: 'metadata-malformed' }, body);
  }
  assert.throws(() => read(pax('22 GNU.sparse.major=1\n')), { code: 'unsupported' });
});

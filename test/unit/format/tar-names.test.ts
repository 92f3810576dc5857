import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tarSpans } from '../../../src/format/tar-names.js';
import { sparseHeader, TAR_END, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import { editedHeader } from '../../support/edited-header.js';

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

test('it ends where a header is not sound, where bytes are gone, and at the end of the tar', () => {
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

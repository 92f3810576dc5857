/** Tars, and the file systems that they make. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { DIRECTORY, type FileTree, HARD_LINK, pathAt } from '../../../src/export/file-tree.js';
import { flatten } from '../../../src/export/flatten.js';
import { type PlacedEntry, type TarSource, tarEntries, tarSpans } from '../../../src/format/tar-entries.js';
import { TarWalker } from '../../../src/format/tar-walker.js';
import { paxRecord, TAR_END, type TarItem, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import { TarReader } from '../../../src/sandbox/tar-reader.js';
import { cutUp } from '../../support/chunked-layers.js';
import { type Entry, sourceOf, tarOf } from '../../support/tars.js';
import { mutated } from '../mutate.js';
import { ENTRIES, TAR } from '../seeds.js';
import { type Target, target, tolerate } from '../target.js';

const BLOCK = 512;
const REFUSALS = ['metadata-malformed', 'unsupported'] as const;

/** Blocks that look like a header get the checksum of one, so that what is behind it is read at all. */
function sealed(tar: Buffer): Buffer {
  const bytes = Buffer.from(tar);
  for (let at = 0; at + BLOCK <= bytes.length; at += BLOCK) {
    const block = bytes.subarray(at, at + BLOCK);
    if (!block.subarray(257, 262).equals(USTAR)) continue;
    block.fill(' ', 148, 156);
    const sum = block.reduce((total, byte) => total + byte, 0);
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  }
  return bytes;
}

const USTAR = Buffer.from('ustar');

/** An extended header of this type with this body, as GNU tar and pax write it. */
function metaEntry(type: string, body: string): Buffer {
  const bytes = Buffer.from(body, 'latin1');
  const ids = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 };
  const header = tarHeader({ type: '0', name: 'meta', sizeBytes: bytes.length, ...ids });
  header.write(type, 156, 'latin1');
  return sealed(Buffer.concat([header, bytes, tarPadding(bytes.length)]));
}

const GNU = sealed(
  Buffer.concat([metaEntry('L', `${'n'.repeat(200)}\0`), metaEntry('K', `${'k'.repeat(200)}\0`), TAR]),
);
const SMALL = tarOf({ name: 'a', content: 'b' }, { name: 'c/', type: '5' });
const PAX = Buffer.concat([
  metaEntry('g', '11 a=bcdef\n'),
  metaEntry('x', '12 path=p/q\n11 size=1\n'),
  SMALL,
]);

const SPARSE = Buffer.concat([
  metaEntry('x', '22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n26 GNU.sparse.realsize=99\n'),
  tarOf({ name: 's', content: `${'2\n0\n5\n9\n1\n'.padEnd(512, '\0')}sparse` }),
]);

const PAX_WORDS = [
  ...[
    'path',
    'linkpath',
    'size',
    'uid',
    'mtime',
    'SCHILY.xattr.user.a',
    'GNU.sparse.major',
    'GNU.sparse.map',
  ].map((key) => paxRecord(key, Buffer.from('7')).toString()),
  'ustar\x0000',
  'ustar  \0',
  '0000000\0',
  '77777777777',
  '\x80\0\0\0\0\0\0\0\0\0\0\x01',
  '\xff\xff\xff\xff\xff\xff\xff\xff',
];

const tars = fc
  .tuple(mutated([TAR, SMALL, GNU, PAX, SPARSE], PAX_WORDS), fc.boolean())
  .map(([bytes, isSealed]) => (isSealed ? sealed(bytes) : bytes));

/** Contents of regular files, as a walker that is given the tar in pieces finds them; undefined when it refuses. */
function walked(tar: Buffer, pieceBytes: number): Buffer[] | undefined {
  const found: Buffer[][] = [];
  const walker = new TarWalker();
  const sink = {
    begin: () => void found.push([]),
    data: (part: Buffer) => void found.at(-1)!.push(Buffer.from(part)),
    end: () => {},
  };
  const done = tolerate(
    () => {
      for (const piece of cutUp(tar, pieceBytes)) walker.walk(piece, sink);
      return true;
    },
    ...REFUSALS,
  );
  return done ? found.map((parts) => Buffer.concat(parts)) : undefined;
}

const tar = target('tar', fc.tuple(tars, fc.integer({ min: 1, max: 2000 })), ([bytes, pieceBytes]) => {
  const { source, reads } = counted(bytes);
  const entries = tolerate(() => [...tarEntries(source)], ...REFUSALS);
  assert.ok(reads() <= 2 * (bytes.length / BLOCK + 1), 'no block is read again and again');
  const size = Math.max(pieceBytes, bytes.length >> 8);
  const contents = walked(bytes, size);
  assert.deepEqual(contents, walked(bytes, Math.max(1, bytes.length)));
  if (entries !== undefined && contents !== undefined)
    assert.deepEqual(contents, fileContents(bytes, entries));
  let end = 0;
  for (const span of tarSpans((start, length) => bytes.subarray(start, start + length), bytes.length)) {
    assert.ok(span.start === end && span.end > span.start && span.end <= bytes.length);
    end = span.end;
  }
  tolerate(() => readAll(bytes, size), ...REFUSALS);
});

/** A source that counts how often it is read. */
function counted(bytes: Buffer): { source: TarSource; reads: () => number } {
  const source = sourceOf(bytes);
  let count = 0;
  const read: TarSource['read'] = (position, length) => {
    count += 1;
    return source.read(position, length);
  };
  return { source: { ...source, read }, reads: () => count };
}

/** What a walker calls contents: the map of a sparse file is a part of them where it stands there, and old sparse files have none. */
function fileContents(bytes: Buffer, entries: readonly PlacedEntry[]): Buffer[] {
  return entries.flatMap(({ entry, contentStart, contentBytes }) => {
    const isFile = entry.type === '0' || entry.type === '7';
    const end = contentStart + contentBytes;
    return isFile && entry.sizeBytes > 0 ? [bytes.subarray(end - entry.sizeBytes, end)] : [];
  });
}

function readAll(bytes: Buffer, pieceBytes: number): void {
  let kept = 0;
  const count = (part: Buffer) => {
    kept += part.length;
  };
  const reader = new TarReader({ entry: (_, __, raw) => count(raw), content: count, trailer: count });
  for (const piece of cutUp(bytes, pieceBytes)) reader.push(piece);
  reader.end();
  assert.equal(kept, bytes.length);
}

/** Names as bytes, without the NUL that no name can have. */
const names = fc.oneof(
  fc.constantFrom(
    'a',
    'a/b/',
    '.',
    '/x',
    'n'.repeat(101),
    `${'d/'.repeat(80)}f`,
    `${'p'.repeat(160)}/${'q'.repeat(101)}`,
  ),
  fc.uint8Array({ minLength: 1, maxLength: 300 }).map((bytes) => Buffer.from(bytes.map((byte) => byte || 1))),
);

const items: fc.Arbitrary<TarItem> = fc.record({
  type: fc.constantFrom('0', '1', '2', '3', '4', '5', '6'),
  name: names,
  linkName: names,
  mode: fc.nat(0o7777),
  uid: fc.nat(2 ** 31 - 1),
  gid: fc.nat(2 ** 31 - 1),
  sizeBytes: fc.oneof(fc.nat(2000), fc.maxSafeNat()),
  mtimeSeconds: fc.integer({ min: -(10 ** 11), max: 10 ** 11 }),
  mtimeNanos: fc.nat(999_999_999),
  devMajor: fc.nat(4095),
  devMinor: fc.nat(0o7777777),
});

const tarWriter = target('tar-writer', items, (item) => {
  const header = tarHeader(item);
  const lengthBytes = 2 ** 53 - 1;
  const source = {
    lengthBytes,
    read: (position: number, length: number) =>
      position < header.length ? header.subarray(position, position + length) : TAR_END.subarray(0, length),
  };
  const first = tolerate(() => tarEntries(source).next().value, 'metadata-malformed');
  // A tar has no room for a content that ends behind the last integer of a double.
  if (first === undefined) return assert.ok(item.sizeBytes > lengthBytes - header.length);
  const { entry } = first;
  const { name, linkName = '', type, mode, uid, gid, mtimeSeconds, mtimeNanos } = item;
  assert.deepEqual(entry.name, Buffer.from(name as string));
  assert.deepEqual(entry.linkName, Buffer.from(linkName as string));
  assert.deepEqual([entry.type, entry.mode, entry.uid, entry.gid], [type, mode, uid, gid]);
  assert.equal(entry.sizeBytes, item.sizeBytes);
  assert.deepEqual(entry.mtime, { seconds: mtimeSeconds, nanos: mtimeNanos });
  assert.deepEqual([entry.devMajor, entry.devMinor], [item.devMajor, item.devMinor]);
});

const PARTS = [
  'a',
  'b',
  'c',
  '.',
  '..',
  '',
  '.wh.a',
  '.wh.b',
  '.wh..wh..opq',
  '.wh..',
  '.wh...',
  '__proto__',
  'd\\e',
  '\xff',
];
const paths = fc.oneof(
  fc.array(fc.constantFrom(...PARTS), { minLength: 1, maxLength: 5 }).map((parts) => parts.join('/')),
  fc.constantFrom('/', './', '../../..', 'x'.repeat(4097), 'y/'.repeat(2000), 'z/'.repeat(2100), 'nul\0name'),
);

const entries: fc.Arbitrary<Entry> = fc.oneof(
  fc.record({ name: paths, content: fc.constantFrom('', 'x') }),
  fc.record({ type: fc.constant('5' as const), name: paths }),
  fc.record({ type: fc.constantFrom('1' as const, '2' as const), name: paths, linkName: paths }),
  fc.constantFrom(...ENTRIES),
);

const flattened = target(
  'flatten',
  fc.array(
    fc.oneof(
      fc.array(entries, { maxLength: 8 }).map((layer) => tarOf(...layer)),
      tars,
    ),
    { maxLength: 4 },
  ),
  (layers) => {
    const tree = tolerate(() => flatten(layers.map(sourceOf)), ...REFUSALS);
    if (tree === undefined) return;
    assertTree(tree);
    for (const path of ['.', ...(tree.count > 1 ? [pathAt(tree, tree.count - 1).toString()] : [])]) {
      const only = { path, asRoot: false };
      const part = tolerate(() => flatten(layers.map(sourceOf), { only }), ...REFUSALS, 'path-not-found');
      if (part !== undefined) assertTree(part);
    }
  },
);

/** No path leads out, what is in a directory follows it, and hard links are of files that stand before them. */
function assertTree(tree: FileTree): void {
  const directories = new Set(['']);
  const seen = new Set<string>();
  for (let row = 0; row < tree.count; row++) {
    const path = pathAt(tree, row).toString('latin1');
    assert.ok(!seen.has(path), `${path} is there twice`);
    seen.add(path);
    const parts = path.split('/');
    assert.ok(row === 0 || parts.every((part) => part !== '' && part !== '.' && part !== '..'), path);
    assert.ok(!path.includes('\0') && path.length <= 4096);
    assert.ok(directories.has(parts.slice(0, -1).join('/')), `${path} stands before its directory`);
    if (tree.type[row] === DIRECTORY) directories.add(path);
    if (tree.type[row] !== HARD_LINK) continue;
    const first = tree.target[row]!;
    assert.ok(first < row && tree.type[first] !== HARD_LINK && tree.type[first] !== DIRECTORY);
  }
}

export const TAR_TARGETS: readonly Target[] = [tar, tarWriter, flattened];

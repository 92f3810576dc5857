import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { TarWalker } from '../../../src/format/tar-walker.js';
import { TAR_END, type TarItem, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import { cutUp } from '../../support/chunked-layers.js';
import { noise } from '../../support/layout.js';
import { skipUnless } from '../../support/programs.js';
import { type Random, seededRandom } from '../../support/random.js';
import { editedHeader } from '../../support/tars.js';
import { temporaryDirectory } from '../../support/temporary.js';

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
const MALFORMED = { name: 'PullError', code: 'metadata-malformed' };

/** Walks the pieces and returns the contents; a content that was not begun has the size -1. */
function walk(pieces: readonly Buffer[], walker = new TarWalker()) {
  const contents: Array<{ sizeBytes: number; bytes: string; ended: boolean }> = [];
  const last = () => {
    const content = contents.at(-1);
    if (content !== undefined && !content.ended) return content;
    contents.push({ sizeBytes: -1, bytes: '', ended: false });
    return contents.at(-1)!;
  };
  for (const piece of pieces) {
    // The caller's memory is used again: what the walker keeps of it must be a copy.
    const memory = Buffer.from(piece);
    walker.walk(memory, {
      begin: (sizeBytes) => contents.push({ sizeBytes, bytes: '', ended: false }),
      data(part) {
        last().bytes += part.toString('latin1');
      },
      end() {
        last().ended = true;
      },
    });
    memory.fill(0x78);
  }
  return { contents, walker };
}

/** Contents that came whole. */
function contentsOf(pieces: readonly Buffer[]): string[] {
  return walk(pieces).contents.map(({ sizeBytes, bytes, ended }) => {
    assert.ok(ended);
    assert.equal(bytes.length, sizeBytes);
    return bytes;
  });
}

/** An entry of this type with so much content. */
function entry(type: string, content: string | Buffer, more: Partial<TarItem> = {}): Buffer {
  const bytes = Buffer.from(content);
  const header = tarHeader({ ...FILE, ...more, sizeBytes: bytes.length });
  return Buffer.concat([editedHeader(header, { 156: type }), bytes, tarPadding(bytes.length)]);
}

function pax(...records: string[]): Buffer {
  return entry('x', records.join(''));
}

/** A header of this type with a size field, and nothing behind it. */
function bare(type: string, sizeBytes: number): Buffer {
  return editedHeader(tarHeader({ ...FILE, sizeBytes }), { 156: type });
}

/** One of everything, and the contents of its regular files. */
const ALL: ReadonlyArray<readonly [Buffer, ...string[]]> = [
  [entry('0', 'first'), 'first'],
  [entry('\0', 'x'.repeat(512), { name: 'v7' }), 'x'.repeat(512)],
  [entry('7', 'y'.repeat(700)), 'y'.repeat(700)],
  [entry('0', '')],
  [bare('5', 0)],
  [bare('1', 1000)],
  [bare('6', 7)],
  [bare('\0', 0)],
  [entry('L', `${'n'.repeat(200)}\0`)],
  [entry('0', 'abc'), 'abc'],
  [entry('g', '17 comment=global\n')],
  [entry('V', 'a volume')],
  [entry('D', 'names of a directory')],
  [pax('12 size=600\n')],
  [Buffer.concat([bare('0', 0), Buffer.alloc(600, 'p'), tarPadding(600)]), 'p'.repeat(600)],
  [entry('S', 'sparse map')],
  [entry('0', 'z'), 'z'],
  [TAR_END],
];
const TAR = Buffer.concat(ALL.map(([bytes]) => bytes));
const CONTENTS = ALL.flatMap(([, ...contents]) => contents);

test('the contents of regular files are found, whatever stands between them', () => {
  const { walker } = walk([TAR]);
  assert.deepEqual(contentsOf([TAR]), CONTENTS);
  assert.ok(walker.ended);
});

test('it does not matter where the bytes are cut', () => {
  for (let cut = 0; cut <= TAR.length; cut++) {
    assert.deepEqual(contentsOf([TAR.subarray(0, cut), TAR.subarray(cut)]), CONTENTS, `at ${cut}`);
  }
  for (const pieceBytes of [1, 7, 511, 513]) {
    assert.deepEqual(contentsOf(cutUp(TAR, pieceBytes)), CONTENTS, `in pieces of ${pieceBytes}`);
  }
});

test('a file of the time before POSIX whose name ends in a slash is a directory and has no content', () => {
  const directory = editedHeader(tarHeader({ ...FILE, name: 'd/', sizeBytes: 512 }), { 156: '\0' });
  const next = entry('0', 'next');
  assert.deepEqual(contentsOf([directory, next]), ['next']);
  const longName = entry('L', `${'d'.repeat(150)}/\0`);
  assert.deepEqual(contentsOf([longName, bare('\0', 512), next]), ['next']);
  assert.deepEqual(contentsOf([pax('11 path=d/\n'), bare('\0', 512), next]), ['next']);
  // A slash that an extended header gave to another entry is forgotten.
  assert.deepEqual(contentsOf([longName, bare('5', 0), entry('\0', 'file')]), ['file']);
});

test('sizes in base 256 and in pax headers are read, the latter for one entry only', () => {
  const size = Buffer.alloc(12);
  size[0] = 0x80;
  size.writeUInt32BE(5, 8);
  const header = editedHeader(tarHeader(FILE), { 124: size });
  const five = Buffer.concat([header, Buffer.from('fives'), tarPadding(5)]);
  assert.deepEqual(contentsOf([five]), ['fives']);
  const six = Buffer.concat([bare('0', 1), Buffer.from('sixsix'), tarPadding(6)]);
  assert.deepEqual(contentsOf([pax('10 size=6\n'), six, entry('0', 'abc')]), ['sixsix', 'abc']);
  assert.deepEqual(contentsOf([pax('8 size=\n'), entry('0', 'abc')]), ['abc']);
});

test('blocks that extend an old GNU sparse header do not count as content', () => {
  const more = Buffer.alloc(512);
  more[504] = 1;
  const header = editedHeader(bare('S', 600), { 257: 'ustar  \0', 482: Buffer.of(1) });
  const stored = Buffer.concat([header, more, Buffer.alloc(512), Buffer.alloc(600, 's'), tarPadding(600)]);
  assert.deepEqual(contentsOf([stored, entry('0', 'next')]), ['next']);
});

test('sparse files as GNU tar writes them are passed over', { skip: skipUnless('tar') }, (t) => {
  const directory = temporaryDirectory(t);
  const fd = openSync(join(directory, 'sparse'), 'w');
  for (let i = 0; i < 40; i++) writeSync(fd, 'data', i * 100_000);
  ftruncateSync(fd, 5_000_000);
  closeSync(fd);
  writeFileSync(join(directory, 'whole'), 'a whole file');
  const tar = join(directory, 'it.tar');
  execFileSync('tar', ['-cSf', tar, '--format=gnu', '-C', directory, 'sparse', 'whole']);
  const bytes = readFileSync(tar);
  assert.equal(bytes[156], 'S'.charCodeAt(0));
  assert.equal(bytes[482], 1);
  assert.deepEqual(contentsOf(cutUp(bytes, 1000)), ['a whole file']);
});

test('a walk can begin inside a content or the padding behind it', () => {
  const next = entry('0', 'next');
  const rest = walk(
    [Buffer.from('rest'), tarPadding(700), next],
    new TarWalker({ sizeBytes: 700, leftBytes: 4 }),
  );
  assert.deepEqual(rest.contents, [
    { sizeBytes: -1, bytes: 'rest', ended: true },
    { sizeBytes: 4, bytes: 'next', ended: true },
  ]);
  const padding = walk([Buffer.alloc(100), next], new TarWalker({ paddingBytes: 100 }));
  assert.deepEqual(padding.contents, [{ sizeBytes: 4, bytes: 'next', ended: true }]);
});

test('nothing behind the end of the archive matters', () => {
  assert.deepEqual(contentsOf([entry('0', 'abc'), TAR_END, noise(1, 2000), entry('0', 'no')]), ['abc']);
});

test('what is no tar header is refused', () => {
  const bad = Buffer.from(tarHeader(FILE));
  bad[0] = 0x67;
  for (const pieces of [
    [bad],
    [noise(1, 512)],
    [Buffer.alloc(512), tarHeader(FILE)],
    [editedHeader(tarHeader(FILE), { 124: '9' })],
    [editedHeader(tarHeader(FILE), { 124: Buffer.alloc(12, 0xff) })],
    [bare('x', 2 ** 21)],
    [pax('11 size=-1\n'), bare('0', 0)],
    [pax('99 size=1\n')],
  ]) {
    assert.throws(() => walk(pieces), MALFORMED);
  }
});

/** A tar of some entries of any kind, and its contents. */
function randomTar(random: Random): { tar: Buffer; contents: string[] } {
  const parts: Buffer[] = [];
  const contents: string[] = [];
  for (let left = random.int(0, 12); left > 0; left--) {
    const bytes = noise(random.int(1, 1000), random.chance(0.3) ? 0 : random.int(1, 3000));
    const name = random.chance(0.2) ? 'long/'.repeat(60) : 'short';
    const type = ['0', '0', '0', '\0', '7', 'g', 'V', '2'][random.int(0, 7)]!;
    // tarHeader puts a pax header before the block when the name needs one: only the block is edited.
    const header = tarHeader({ ...FILE, name: `${name}file`, sizeBytes: bytes.length });
    const block = editedHeader(header.subarray(-512), { 156: type });
    parts.push(header.subarray(0, -512), block);
    if (type === '2') continue;
    parts.push(bytes, tarPadding(bytes.length));
    if (type !== 'g' && type !== 'V' && bytes.length > 0) contents.push(bytes.toString('latin1'));
  }
  return { tar: Buffer.concat([...parts, TAR_END]), contents };
}

test('random tars in random pieces give their contents', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seededRandom(seed);
    const { tar, contents } = randomTar(random);
    const pieces: Buffer[] = [];
    for (let at = 0; at < tar.length; ) {
      const end = at + random.int(1, random.chance(0.5) ? 50 : 5000);
      pieces.push(tar.subarray(at, end));
      at = end;
    }
    assert.deepEqual(contentsOf(pieces), contents, `seed ${seed}`);
  }
});

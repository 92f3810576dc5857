import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linkAt, pathAt, xattrRecordsAt } from '../../../src/export/file-tree.js';
import { flatten } from '../../../src/export/flatten.js';
import { digestOfBytes } from '../../../src/format/digest.js';
import { paxRecord } from '../../../src/format/tar-writer.js';
import { type Entry, sourceOf, tarOf } from '../../support/tars.js';

/** A line a path: its type, where it lies, and what a link or a directory says. */
function flat(...layers: readonly Entry[][]): string[] {
  const tree = flatten(layers.map((entries) => sourceOf(tarOf(...entries))));
  return Array.from({ length: tree.count }, (_, row) => {
    const type = String.fromCharCode(tree.type[row]!);
    const link = type === '1' ? pathAt(tree, tree.target[row]!) : linkAt(tree, row);
    const more = type === '0' ? `layer ${tree.layer[row]}` : link.toString('latin1');
    return `${type} ${pathAt(tree, row).toString('latin1')} ${more}`.trim();
  });
}

const directory = (name: string): Entry => ({ name, type: '5' });
const symlink = (name: string, linkName: string): Entry => ({ name, type: '2', linkName });
const hardLink = (name: string, linkName: string): Entry => ({ name, type: '1', linkName });

test('paths come in the order of a walk, names by their bytes, directories that nobody states included', () => {
  assert.deepEqual(
    flat([{ name: 'b/c' }, { name: './a-b' }, { name: '/a/z' }, { name: 'a/\xff' }, directory('./')]),
    ['5', '5 a', '0 a/z layer 0', '0 a/\xc3\xbf layer 0', '0 a-b layer 0', '5 b', '0 b/c layer 0'],
  );
});

test('what an upper layer has takes the place of what is there, but a directory keeps its names', () => {
  const lower = [directory('d'), { name: 'd/old' }, { name: 'file' }, directory('gone'), { name: 'gone/x' }];
  const upper = [directory('d'), { name: 'd/new' }, directory('file'), { name: 'gone' }];
  assert.deepEqual(flat(lower, upper), [
    '5 d',
    '0 d/new layer 1',
    '0 d/old layer 0',
    '5 file',
    '0 gone layer 1',
  ]);
});

test('whiteouts take away what is lower, wherever in the tar they stand, and are no files themselves', () => {
  const lower = [
    { name: 'a' },
    directory('d'),
    { name: 'd/x' },
    directory('e'),
    { name: 'e/x' },
    { name: 'e/y' },
  ];
  const upper = [
    { name: 'a' },
    { name: '.wh.a' },
    { name: '.wh.d' },
    { name: 'e/z' },
    { name: 'e/.wh..wh..opq' },
  ];
  assert.deepEqual(flat(lower, upper), ['0 a layer 1', '5 e', '0 e/z layer 1']);
  assert.deepEqual(flat([{ name: '.wh.none' }, { name: 'no/.wh.thing' }, { name: '.wh..wh.plnk/1.2' }]), []);
});

test('a whiteout of the directory that it stands in, or of the one above, is refused', () => {
  for (const name of ['.wh.', '.wh..', '.wh...']) {
    assert.throws(() => flat([{ name: 'a/b/c' }], [{ name: `a/b/${name}` }]), {
      code: 'metadata-malformed',
      message: /takes no file away/,
    });
  }
  assert.deepEqual(flat([{ name: 'a/...' }, { name: 'a/..b' }], [{ name: 'a/.wh....' }]), [
    '5 a',
    '0 a/..b layer 0',
  ]);
});

test('whiteouts through a symbolic link, absolute or to above, take away what lies there in the image', () => {
  const lower = [
    { name: 'd/x' },
    { name: 'd/y' },
    { name: 'z' },
    symlink('to', '/d'),
    symlink('d/up', '../..'),
  ];
  assert.deepEqual(flat(lower, [{ name: 'to/.wh.x' }, { name: 'd/up/.wh.z' }, { name: '../../.wh.none' }]), [
    '5 d',
    '2 d/up ../..',
    '0 d/y layer 0',
    '2 to /d',
  ]);
  assert.deepEqual(flat(lower, [{ name: 'to/.wh..wh..opq' }]), ['5 d', '2 to /d', '0 z layer 0']);
  assert.deepEqual(flat(lower, [{ name: 'd/up/.wh..wh..opq' }]), []);
});

test('a path through a symbolic link leads where it leads in the image, never out of it', () => {
  const lower = [
    directory('real'),
    symlink('to', 'real'),
    symlink('abs', '/real/'),
    symlink('out', '../../../real'),
  ];
  assert.deepEqual(
    flat(lower, [
      { name: 'to/a' },
      { name: 'abs/b' },
      { name: 'out/c' },
      { name: 'to/../d' },
      { name: '../../e' },
    ]),
    [
      '2 abs /real/',
      '0 d layer 1',
      '0 e layer 1',
      '2 out ../../../real',
      '5 real',
      '0 real/a layer 1',
      '0 real/b layer 1',
      '0 real/c layer 1',
      '2 to real',
    ],
  );
  assert.deepEqual(flat(lower, [{ name: 'to/.wh.x' }, { name: 'to' }]).at(-1), '0 to layer 1');
});

test('an absolute link begins at the root of the image, wherever it stands', () => {
  assert.deepEqual(flat([symlink('deep/abs', '/real'), { name: 'deep/abs/a' }]), [
    '5 deep',
    '2 deep/abs /real',
    '5 real',
    '0 real/a layer 0',
  ]);
});

test('symbolic links in a circle are refused', () => {
  assert.throws(() => flat([symlink('a', 'b'), symlink('b', 'a'), { name: 'a/x' }]), {
    code: 'metadata-malformed',
  });
});

test('hard links share a file across layers, and keep it when its first name goes', () => {
  const lower = [{ name: 'b' }, hardLink('a', 'b'), hardLink('c', '/./b')];
  assert.deepEqual(flat(lower), ['0 a layer 0', '1 b a', '1 c a']);
  assert.deepEqual(flat(lower, [{ name: '.wh.a' }, { name: 'b' }, hardLink('d', 'c')]), [
    '0 b layer 1',
    '0 c layer 0',
    '1 d c',
  ]);
  assert.deepEqual(flat([{ name: 'a' }, hardLink('a', 'a')]), ['0 a layer 0']);
});

test('a hard link to what is not in the image is refused', () => {
  for (const target of ['/etc/passwd', '../../etc/passwd', 'later', 'd']) {
    assert.throws(() => flat([directory('d'), hardLink('a', target), { name: 'later' }]), {
      code: 'metadata-malformed',
      message: /hard link "a"/,
    });
  }
});

test('owners, times, devices and extended attributes are those of the header', () => {
  const records = Buffer.concat([
    paxRecord('SCHILY.xattr.user.x', 'a\0b=c\n'),
    paxRecord('SCHILY.xattr.y', ''),
  ]);
  const entry: Entry = {
    name: 'null',
    type: '3',
    mode: 0o14666,
    uid: 4_000_000_000,
    gid: 7,
    mtimeSeconds: -5,
    mtimeNanos: 250_000_000,
    devMajor: 1,
    devMinor: 3,
    records,
  };
  const tree = flatten([sourceOf(tarOf(entry))]);
  const row = [
    tree.mode,
    tree.uid,
    tree.gid,
    tree.mtimeSeconds,
    tree.mtimeNanos,
    tree.devMajor,
    tree.devMinor,
  ];
  assert.deepEqual(
    row.map((column) => column[0]),
    [0o4666, 4_000_000_000, 7, -5, 250_000_000, 1, 3],
  );
  assert.deepEqual(xattrRecordsAt(tree, 0), records);
});

test('entries that no image has are named', () => {
  assert.throws(() => flat([{ name: 'a', type: 'V' as '0' }]), { code: 'unsupported', message: /"V"/ });
  assert.throws(() => flat([{ name: 'x/'.repeat(2049) }]), { code: 'metadata-malformed', message: /4096/ });
  assert.throws(() => flat([{ name: 'a', uid: 2 ** 32 }]), {
    code: 'metadata-malformed',
    message: /user ID/,
  });
  for (const records of [paxRecord('path', 'a\0b'), paxRecord('linkpath', 'a\0b')]) {
    assert.throws(() => flat([{ ...symlink('a', 'b'), records }]), {
      code: 'metadata-malformed',
      message: /NUL/,
    });
  }
});

test('an error names the layer that it is about', () => {
  const [good, link, odd] = [[directory('d')], [hardLink('a', 'gone')], [{ name: 'a', type: 'V' as '0' }]];
  assert.throws(() => flat(good, link), { message: /"gone".* \(layer 2 of 2\)$/ });
  assert.throws(() => flat(good, odd, good), { message: /\(layer 2 of 3\)$/, hint: /layers:DIR/ });
  const diffId = digestOfBytes(Buffer.alloc(32));
  const { lengthBytes, read } = sourceOf(tarOf(...odd));
  assert.throws(() => flatten([{ lengthBytes, read, diffId }]), {
    message: new RegExp(`\\(layer 1 of 1, ${diffId}\\)$`),
    layer: diffId,
  });
});

test('links that make a path longer at every step end at the longest there may be', () => {
  const deep = Array.from({ length: 40 }, (_, step) => [
    { name: `s${step}/${'d/'.repeat(100)}x` },
    symlink(`s${step + 1}`, `s${step}/${'d/'.repeat(100)}`),
  ]).flat();
  assert.throws(() => flat(deep), { code: 'metadata-malformed' });
});

test('extended attributes count, also those that an upper layer replaces: memory has a bound', () => {
  const records = paxRecord('SCHILY.xattr.user.a', Buffer.alloc(1_000_000, 'x'));
  const layer = sourceOf(tarOf({ name: 'a', records }));
  const image = (layers: number) => flatten(Array.from({ length: layers }, () => layer));
  assert.equal(image(900).count, 1);
  assert.throws(() => image(1100), { code: 'metadata-malformed', message: /names have more than/ });
});

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

test('paths come in the order of a walk, names by their bytes, directories without an entry included', () => {
  assert.deepEqual(
    flat([{ name: 'b/c' }, { name: './a-b' }, { name: '/a/z' }, { name: 'a/\xff' }, directory('./')]),
    ['5', '5 a', '0 a/z layer 0', '0 a/\xc3\xbf layer 0', '0 a-b layer 0', '5 b', '0 b/c layer 0'],
  );
});

test('entries of an upper layer replace those below, but a directory keeps its names', () => {
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
      message: /names no file to remove/,
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
  assert.throws(() => flat([{ name: 'a', type: '3', devMajor: 4096 }]), {
    message: /"a" has the device number 4096 \(layer 1/,
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
  const records = paxRecord('SCHILY.xattr.user.a', Buffer.alloc(10_000, 'x'));
  const layer = sourceOf(tarOf({ name: 'a', records }));
  const limits = { maxTextBytes: 1_000_000 };
  const image = (layers: number) =>
    flatten(
      Array.from({ length: layers }, () => layer),
      limits,
    );
  assert.equal(image(90).count, 1);
  assert.throws(() => image(110), { code: 'metadata-malformed', message: /names have more than/ });
});

/** Links that lead through each other to `end`, each by a long way around. */
const CHAIN: readonly Entry[] = [
  ...Array.from({ length: 39 }, (_, i) =>
    symlink(`l${i}`, `${'d/../'.repeat(800)}${i === 38 ? 'end' : `l${i + 1}`}`),
  ),
  directory('d'),
  directory('end'),
];
/** To follow each link of it once: 1,601 parts, and ten for each of 10,000 entries. To follow all for each entry takes 600 million. */
const CHAIN_STEPS = 39 * 1601 + 100_000;

function entriesOf(count: number, entryAt: (i: number) => Entry | Entry[]): Entry[] {
  return Array.from({ length: count }, (_, i) => entryAt(i)).flat();
}

function flattenWithin(limits: Parameters<typeof flatten>[1], ...layers: readonly Entry[][]) {
  return flatten(
    layers.map((entries) => sourceOf(tarOf(...entries))),
    limits,
  );
}

test('a link that thousands of paths lead through is followed once', () => {
  const limits = { maxSteps: CHAIN_STEPS };
  const files = entriesOf(10_000, (i) => ({ name: `l0/f${i}` }));
  assert.equal(flattenWithin(limits, [...CHAIN, ...files]).count, CHAIN.length + 10_000);
  const directories = entriesOf(5000, (i) => ({ name: `l0/e${i}/f` }));
  assert.equal(flattenWithin(limits, [...CHAIN, ...directories]).count, CHAIN.length + 10_000);
  const names = entriesOf(10_000, (i) => hardLink(`h${i}`, 'l0/f'));
  assert.equal(flattenWithin(limits, [...CHAIN, { name: 'end/f' }, ...names]).count, CHAIN.length + 10_001);
});

test('whiteouts behind a link follow it once, and again when one took a link or a directory away', () => {
  const limits = { maxSteps: CHAIN_STEPS };
  const lower = [...CHAIN, ...entriesOf(1000, (i) => ({ name: `end/f${i}` }))];
  const whiteouts = entriesOf(10_000, (i) => ({ name: `l0/.wh.f${i}` }));
  assert.equal(flattenWithin(limits, lower, whiteouts).count, CHAIN.length);
  const opaque = entriesOf(10_000, () => ({ name: 'l0/.wh..wh..opq' }));
  assert.equal(flattenWithin(limits, lower, opaque).count, CHAIN.length);
  const links = entriesOf(100, (i) => symlink(`end/s${i}`, 'x'));
  const away = entriesOf(100, (i) => ({ name: `l0/.wh.s${i}` }));
  assert.throws(() => flattenWithin({ maxSteps: 2_000_000 }, [...CHAIN, ...links], away), {
    code: 'metadata-malformed',
    message: /more than 2000000 steps.*layer 2 of 2/,
    hint: /./,
  });
});

test('paths and links that take too many steps are refused, with the limit and the layer', () => {
  const limits = { maxSteps: 2_000_000 };
  const attacks: readonly Entry[][] = [
    // A link that is replaced all the time may change where all others lead.
    [...CHAIN, ...entriesOf(200, (i) => [symlink('x', 'd'), { name: `l0/f${i}` }])],
    [
      ...CHAIN.slice(0, -1),
      ...entriesOf(200, (i) => [directory('l1'), symlink('l1', 'l2'), { name: `l0/f${i}` }]),
    ],
    entriesOf(2000, (i) => ({ name: `${(i % 2 === 0 ? 'a/' : 'b/').repeat(1000)}f${i}` })),
    entriesOf(2000, (i) => ({ name: `${'a/../'.repeat(800)}d${i}/f` })),
    entriesOf(40, () => ({ name: 'a', records: paxRecord('comment', Buffer.alloc(900_000, 'c')) })),
  ];
  for (const attack of attacks) {
    assert.throws(() => flattenWithin(limits, [{ name: 'lower' }], attack), {
      code: 'metadata-malformed',
      message: /more than 2000000 steps.*layer 2 of 2/,
      hint: /./,
    });
  }
});

test('thousands of entries in one deep directory take the way to it once', () => {
  // The extended headers with their names take 190 steps each.
  const files = entriesOf(2000, (i) => ({ name: `${'a/'.repeat(1500)}f${i}` }));
  assert.equal(flattenWithin({ maxSteps: 600_000 }, files).count, 3500);
});

test('large trees that are taken away again and again cost no more than they did to make', () => {
  const files = entriesOf(5000, (i) => ({ name: `d/f${i}` }));
  const replacing = entriesOf(2000, () => [directory('d'), { name: 'd' }]);
  const opaque = entriesOf(5000, () => ({ name: 'd/.wh..wh..opq' }));
  assert.equal(flattenWithin({ maxSteps: 100_000 }, [...files, ...replacing], opaque).count, 1);
});

test('hard links to hard links are links to the one file', () => {
  const links = entriesOf(5000, (i) => hardLink(`h${i + 1}`, `h${i}`));
  const tree = flattenWithin({ maxSteps: 50_000 }, [{ name: 'h0' }, ...links]);
  assert.equal(tree.count, 5001);
  assert.ok(tree.target.every((row) => row === 0));
});

test('directories without an entry have a limit: a path of 4 KB implies 2,000', () => {
  const paths = entriesOf(50, (i) => ({ name: `u${i}/${'a/'.repeat(1000)}f` }));
  assert.equal(flattenWithin({ maxImplied: 50_050 }, paths).count, 50_100);
  assert.throws(() => flattenWithin({ maxImplied: 50_049 }, paths), {
    code: 'metadata-malformed',
    message: /more than 50049 directories.*layer 1 of 1/,
  });
});

test('a tree as deep as a path can be has its rows', () => {
  assert.equal(flat([{ name: `${'a/'.repeat(2047)}f` }]).length, 2048);
});

test('a link that was followed leads elsewhere once what it leads through has changed', () => {
  const lower = [
    directory('one'),
    directory('two'),
    symlink('to', 'via/x'),
    symlink('via', '/deep'),
    directory('deep'),
    symlink('deep/x', '../one'),
  ];
  const rows = (...changes: Entry[]) =>
    flat([...lower, { name: 'to/before' }, ...changes, { name: 'to/after' }]).filter((row) =>
      /before|after/.test(row),
    );
  const unchanged = ['0 one/after layer 0', '0 one/before layer 0'];
  const moved = ['0 one/before layer 0', '0 two/after layer 0'];
  assert.deepEqual(rows({ name: 'one/more' }, directory('one'), { name: 'deep/file' }), unchanged);
  assert.deepEqual(rows(symlink('to', 'two')), moved);
  assert.deepEqual(rows(symlink('deep/x', '/two')), moved);
  assert.deepEqual(rows({ name: 'deep' }, symlink('deep/x', '../two')), moved);
  assert.deepEqual(rows({ name: 'to' }), ['0 one/before layer 0', '0 to/after layer 0']);
  assert.deepEqual(rows({ name: 'one' }), ['0 one/after layer 0']);
  const whiteout = (name: string) =>
    flat([...lower, { name: 'to/before' }], [{ name: 'to/.wh.none' }, { name }, { name: 'to/after' }]);
  assert.ok(whiteout('deep/.wh.x').includes('0 deep/x/after layer 1'));
  assert.ok(whiteout('.wh.via').includes('0 via/x/after layer 1'));
  assert.ok(whiteout('.wh.one').includes('0 one/after layer 1'));
  assert.ok(whiteout('.wh..wh..opq').includes('0 to/after layer 1'));
});

/** All orders of these. */
function orders<T>(items: readonly T[]): T[][] {
  if (items.length <= 1) return [[...items]];
  return items.flatMap((item, at) => orders(items.toSpliced(at, 1)).map((rest) => [item, ...rest]));
}

/** What every order of the upper layer's entries makes of it, which is the same. */
function flatInEveryOrder(lower: readonly Entry[], upper: readonly Entry[]): string[] {
  const [first, ...others] = orders(upper).map((entries) => flat([...lower], entries));
  for (const other of others) assert.deepEqual(other, first);
  return first!;
}

test('a whiteout does not pass through a link that its own layer replaces by a directory, in any order', () => {
  const lower = [directory('target'), { name: 'target/keep' }, symlink('link', '/target')];
  const kept = ['5 link', '5 target', '0 target/keep layer 0'];
  for (const whiteout of ['link/.wh..wh..opq', './link/.wh.keep', '/link/../link/.wh.keep'])
    assert.deepEqual(flatInEveryOrder(lower, [directory('link/'), { name: whiteout }]), kept, whiteout);
  const withNew = flat(lower, [directory('link'), { name: 'link/.wh..wh..opq' }, { name: 'link/new' }]);
  assert.deepEqual(withNew, ['5 link', '0 link/new layer 1', '5 target', '0 target/keep layer 0']);
});

test('nor through one that it replaces by anything else, takes away, or reaches by another name', () => {
  const lower = [
    directory('target'),
    { name: 'target/keep' },
    symlink('link', 'target'),
    symlink('to-link', 'link'),
    symlink('here', '.'),
    { name: 'other/keep' },
  ];
  const has = (rows: readonly string[], path: string) => rows.some((row) => row.startsWith(`0 ${path} `));
  const whiteouts = ['link/.wh.keep', 'to-link/.wh..wh..opq', 'here/link/.wh.keep'].map((name) => ({ name }));
  const replacements: readonly Entry[] = [
    { name: 'link' },
    symlink('link', 'other'),
    hardLink('link', 'other/keep'),
    { name: 'link', type: '6' },
    { name: '.wh.link' },
    { name: '.wh..wh..opq' },
    directory('here/link'),
    directory('here/here/link'),
  ];
  for (const replacement of replacements)
    for (const whiteout of whiteouts)
      for (const upper of [
        [replacement, whiteout],
        [whiteout, replacement],
      ]) {
        const rows = flat([...lower], replacement.type === '1' ? [...upper] : upper);
        const isCleared = replacement.name === '.wh..wh..opq';
        assert.equal(has(rows, 'target/keep'), !isCleared, JSON.stringify(upper));
      }
});

test('a whiteout passes through a link that its layer leaves alone or states again as it is', () => {
  const lower = [{ name: 'target/keep' }, { name: 'target/gone' }, symlink('link', '/target')];
  for (const upper of [[], [symlink('link', '/target')], [directory('target')]])
    assert.deepEqual(
      flatInEveryOrder(lower, [...upper, { name: 'link/.wh.gone' }]).filter((row) => row.startsWith('0')),
      ['0 target/keep layer 0'],
    );
});

test('a directory behind a replaced link is another one than that of its name below the new directory', () => {
  const lower = [symlink('link', '/target'), symlink('target/sub', '/x'), { name: 'x/y' }, { name: 'x/z' }];
  const upper = [directory('link'), directory('link/sub'), { name: 'target/sub/.wh.y' }];
  assert.deepEqual(
    flatInEveryOrder(lower, [upper[0]!, upper[2]!]).filter((row) => row.startsWith('0')),
    ['0 x/z layer 0'],
  );
  assert.deepEqual(
    flat(lower, upper).filter((row) => row.startsWith('0')),
    ['0 x/z layer 0'],
  );
});

test('opaque directories within opaque directories take away what is lower in each, and no more', () => {
  const lower = [{ name: 'd/a' }, { name: 'd/e/b' }, { name: 'd/e/f/c' }, { name: 'e/kept' }];
  const upper = [
    directory('d'),
    { name: 'd/.wh..wh..opq' },
    { name: 'd/e/.wh..wh..opq' },
    { name: 'd/e/new' },
    { name: 'd/e/f/.wh..wh..opq' },
  ];
  assert.deepEqual(flatInEveryOrder(lower, upper), [
    '5 d',
    '5 d/e',
    '0 d/e/new layer 1',
    '5 e',
    '0 e/kept layer 0',
  ]);
});

test('what aufs has of its own is not in the image, but hard links may lead to it', () => {
  const plink = (name: string): Entry => ({ name: `.wh..wh.plnk/${name}`, content: 'linked' });
  const layer = [
    { name: '.wh..wh.aufs' },
    directory('.wh..wh.orph'),
    directory('.wh..wh.plnk'),
    plink('4.1'),
    hardLink('b', '.wh..wh.plnk/4.1'),
    hardLink('a', './.wh..wh.plnk//4.1'),
    hardLink('.wh..wh.plnk/5.1', 'b'),
    hardLink('c', '/.wh..wh.plnk/5.1'),
  ];
  assert.deepEqual(flat(layer), ['0 a layer 0', '1 b a', '1 c a']);
  assert.deepEqual(flat(layer, [hardLink('d', '.wh..wh.plnk/4.1'), { name: '.wh.a' }]), [
    '0 b layer 0',
    '1 c b',
    '1 d b',
  ]);
  assert.deepEqual(
    flat(
      [plink('1.1'), hardLink('a', '.wh..wh.plnk/1.1')],
      [plink('1.1'), hardLink('b', '.wh..wh.plnk/1.1')],
    ),
    ['0 a layer 0', '0 b layer 1'],
  );
  for (const target of ['.wh..wh.plnk/9.9', '.wh..wh.plnk', '.wh..wh.orph'])
    assert.throws(() => flat([directory('.wh..wh.plnk'), hardLink('a', target)]), {
      message: /hard link "a".*layer 1 of 1/,
    });
});

test('what Linux takes for no name or link is refused where files are made of it, with layer and entry', () => {
  const long = 'n'.repeat(256);
  const refused: ReadonlyArray<readonly [entry: Entry, message: RegExp]> = [
    [{ name: `d/${long}` }, /a name in "d\/n+" is longer than 255 bytes \(layer 2 of 2\)$/],
    [directory(`${long}/d`), /longer than 255 bytes \(layer 2 of 2\)$/],
    [hardLink(long, 'lower'), /longer than 255 bytes \(layer 2 of 2\)$/],
    [symlink('soft', ''), /the symbolic link "soft" leads nowhere \(layer 2 of 2\)$/],
    [
      { ...symlink('soft', ''), records: paxRecord('linkpath', 'x'.repeat(4096)) },
      /"soft" is longer than 4095 bytes \(layer 2/,
    ],
  ];
  for (const [entry, message] of refused) {
    const layers = [[{ name: 'lower' }], [entry]];
    assert.equal(flatten(layers.map((each) => sourceOf(tarOf(...each)))).count > 1, true);
    assert.throws(() => flattenWithin({ intoFiles: true }, ...layers), {
      code: 'metadata-malformed',
      message,
      hint: /tar:FILE/,
    });
  }
  assert.equal(
    flattenWithin({ intoFiles: true }, [{ name: 'n'.repeat(255) }, { name: Buffer.from('é'.repeat(127)) }])
      .count,
    2,
  );
});

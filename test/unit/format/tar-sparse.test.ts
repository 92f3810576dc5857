import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tarEntries } from '../../../src/format/tar-entries.js';
import { paxRecord, TAR_END, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import { editedHeader, sourceOf } from '../../support/tars.js';

const ITEM = { type: '0', name: 'it', mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 } as const;

type Records = ReadonlyArray<readonly [key: string, value: string]>;

/** A tar of one file with these records, which are named without GNU.sparse. */
function paxTar(records: Records, content: string): Buffer {
  const header = tarHeader({
    ...ITEM,
    sizeBytes: content.length,
    records: Buffer.concat(records.map(([key, value]) => paxRecord(`GNU.sparse.${key}`, value))),
  });
  return Buffer.concat([header, Buffer.from(content), tarPadding(content.length), TAR_END]);
}

/** What format 1.0 has before the data. */
function mapText(...lines: readonly (number | string)[]): string {
  const text = `${lines.join('\n')}\n`;
  return text.padEnd(Math.ceil(text.length / 512) * 512, '\0');
}

const VERSION_1: Records = [
  ['major', '1'],
  ['minor', '0'],
];

/** An old GNU header with runs in base-256 or octal, and blocks of more. */
function oldTar(fileBytes: string, runs: readonly string[], more: readonly string[][], data: string): Buffer {
  const block = tarHeader({ ...ITEM, sizeBytes: data.length });
  const fields = (parts: readonly string[]) =>
    Buffer.concat(parts.map((part) => Buffer.from(part.padEnd(12, '\0'))));
  const header = editedHeader(block, {
    156: 'S',
    257: 'ustar  \0',
    386: fields(runs),
    482: more.length > 0 ? '\x01' : '\0',
    483: Buffer.from(fileBytes, 'latin1'),
  });
  const blocks = more.map((parts, at) => {
    const next = Buffer.alloc(512);
    fields(parts).copy(next);
    next[504] = at + 1 < more.length ? 1 : 0;
    return next;
  });
  return Buffer.concat([header, ...blocks, Buffer.from(data), tarPadding(data.length), TAR_END]);
}

/** The file that the only entry of a tar is, as runs of data and its length. */
function fileOf(tar: Buffer): {
  name: string;
  data: string;
  bounds: number[] | undefined;
  fileBytes: number;
} {
  const [placed, ...others] = [...tarEntries(sourceOf(tar))];
  assert.equal(others.length, 0);
  const { entry, contentStart, contentBytes, sparse } = placed!;
  return {
    name: entry.name.toString(),
    data: tar.toString('latin1', contentStart, contentStart + contentBytes),
    bounds: sparse && [...sparse.bounds],
    fileBytes: sparse?.fileBytes ?? contentBytes,
  };
}

test('a sparse file is its data at the places of the map, in all formats of GNU tar', () => {
  const expected = { name: 'real', data: 'abcde', bounds: [2, 4, 10, 13], fileBytes: 20 };
  const named = ['name', 'real'] as const;
  const formats = [
    paxTar(
      [
        ['size', '20'],
        ['numblocks', '3'],
        ...(['2', '10', '20'] as const).flatMap((offset, at) => [
          ['offset', offset] as const,
          ['numbytes', ['2', '3', '0'][at]!] as const,
        ]),
        named,
      ],
      'abcde',
    ),
    paxTar([named, ['map', '2,2,10,3'], ['size', '20'], ['numblocks', '2']], 'abcde'),
    paxTar([...VERSION_1, named, ['realsize', '20']], `${mapText(3, 2, 2, 10, 3, 20, 0)}abcde`),
  ];
  for (const tar of formats) assert.deepEqual(fileOf(tar), expected);
  const runs = ['00000000002', '00000000002', '00000000012', '1 ', '00000000013', '00000000002'];
  assert.deepEqual(fileOf(oldTar('00000000024 ', runs, [], 'abcde')), { ...expected, name: 'it' });
});

test('more runs than a header has are in the blocks behind it, however many', () => {
  const run = (at: number) => [(at * 2).toString(8).padStart(11, '0'), '00000000001'];
  const runs = (count: number, from: number) => Array.from({ length: count }, (_, i) => run(from + i)).flat();
  const tar = oldTar('\x80\0\0\0\0\0\0\0\0\x01\0\0', runs(4, 0), [runs(21, 4), runs(5, 25)], 'x'.repeat(30));
  const { bounds, fileBytes } = fileOf(tar);
  assert.deepEqual([bounds!.length, bounds!.slice(-2), fileBytes], [60, [58, 59], 65_536]);
  const lines = Array.from({ length: 400 }, (_, at) => [at * 1000, 1]).flat();
  const long = paxTar([...VERSION_1, ['realsize', '400000']], `${mapText(400, ...lines)}${'y'.repeat(400)}`);
  assert.equal(fileOf(long).bounds!.length, 800);
});

test('a file may be all hole, or none, and neighbouring runs are one', () => {
  const all = { name: 'it', data: '', bounds: [], fileBytes: 1000 };
  assert.deepEqual(fileOf(paxTar([...VERSION_1, ['realsize', '1000']], mapText(0))), all);
  assert.deepEqual(fileOf(paxTar([...VERSION_1, ['realsize', '1000']], mapText(1, 1000, 0))), all);
  assert.deepEqual(
    fileOf(
      paxTar(
        [
          ['size', '1000'],
          ['numblocks', '0'],
        ],
        '',
      ),
    ),
    all,
  );
  assert.deepEqual(fileOf(oldTar('00000001750 ', ['00000001750', '00000000000'], [], '')), all);
  const whole = paxTar([...VERSION_1, ['realsize', '5']], `${mapText(3, 0, 2, 2, 1, 3, 2)}abcde`);
  assert.deepEqual(fileOf(whole), { name: 'it', data: 'abcde', bounds: undefined, fileBytes: 5 });
  const joined = paxTar(
    [
      ['map', '1,2,3,1'],
      ['size', '9'],
    ],
    'abc',
  );
  assert.deepEqual(fileOf(joined).bounds, [1, 4]);
});

test('a map that makes no file is refused, with the entry', () => {
  const realsize = (bytes: string) => ['realsize', bytes] as const;
  const one = (content: string, bytes = '20') => paxTar([...VERSION_1, realsize(bytes)], content);
  const many = Array.from({ length: 150_000 }, (_, at) => `${at}\n0`).join('\n');
  const bad: Readonly<Record<string, Buffer>> = {
    'runs that overlap': one(`${mapText(2, 0, 3, 2, 2)}abcde`),
    'runs in another order': one(`${mapText(2, 10, 3, 2, 2)}abcde`),
    'a run beyond the end': one(`${mapText(1, 18, 5)}abcde`),
    'an offset beyond the end': one(mapText(1, 21, 0)),
    'a negative length': one(`${mapText(2, 5, -3, 6, 5)}abcde`),
    'less data than runs': one(`${mapText(1, 2, 6)}abcde`),
    'more data than runs': one(`${mapText(1, 2, 4)}abcde`),
    'a map that ends early': one(mapText(9, 1, 1)),
    'no map': one(''),
    'a number that is none': one(`${mapText(1, 'x', 5)}abcde`),
    'a number without an end': one('9'.repeat(512)),
    'a map beyond the limit': one(mapText(150_000, many), '150000'),
    'a count of 2^53': one(mapText(2 ** 53 - 1, 0, 0)),
    'a file of 8 EiB': one(mapText(0), '9223372036854775807'),
    'a file of 16 TiB and a byte': one(mapText(0), String(2 ** 44 + 1)),
    'a negative file': one(mapText(0), '-1'),
    'an odd list': paxTar(
      [
        ['map', '1,2,3'],
        ['size', '20'],
      ],
      'abcde',
    ),
    'another count': paxTar(
      [
        ['map', '1,5'],
        ['size', '20'],
        ['numblocks', '2'],
      ],
      'abcde',
    ),
    'lengths without offsets': paxTar(
      [
        ['size', '9'],
        ['numbytes', '5'],
      ],
      'abcde',
    ),
    'an offset without a length': paxTar(
      [
        ['size', '9'],
        ['numblocks', '1'],
        ['offset', '1'],
      ],
      '',
    ),
    'old runs that overlap': oldTar(
      '00000000024 ',
      ['00000000002', '00000000003', '00000000003', '2'],
      [],
      'abcde',
    ),
    'old runs beyond the end': oldTar('00000000001 ', ['00000000002', '00000000005'], [], 'abcde'),
    'an old map that ends early': oldTar('00000000024 ', [], [[]], '').subarray(0, 512),
  };
  for (const [what, tar] of Object.entries(bad))
    assert.throws(
      () => fileOf(tar),
      { code: 'metadata-malformed', message: /in the entry "it"$|at byte 0 of the tar$/, hint: /./ },
      what,
    );
  const directory = Buffer.from(paxTar([...VERSION_1, realsize('0')], mapText(0)));
  const at = directory.indexOf('ustar', 1024) - 257;
  const typed = editedHeader(directory.subarray(at, at + 512), { 156: '5' });
  typed.copy(directory, at);
  assert.throws(() => fileOf(directory), { code: 'metadata-malformed', message: /cannot be sparse/ });
});

test('a map of old blocks has a limit', () => {
  const blocks = Array.from({ length: 2049 }, () => []);
  assert.throws(() => fileOf(oldTar('00000000024 ', [], blocks, '')), { message: /larger than 1 MiB/ });
});

test('a format that GNU tar does not have, and its type in a header of others, are not supported', () => {
  for (const version of [
    ['major', '2'],
    ['major', '1'],
    ['minor', '1'],
  ] as const)
    assert.throws(() => fileOf(paxTar([version], '')), { code: 'unsupported', message: /sparse.*"it"/ });
});

/** Tars whose names, links and sizes would do harm when they become files. */
import { paxRecord, TAR_END, tarHeader, tarPadding } from '../../../src/format/tar-writer.js';
import { type Entry, tarOf } from '../tars.js';
import { PLANTED, type TreeRow } from './row.js';

const IDS = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 };

function tars(name: string, exit: number, layers: readonly Buffer[]): TreeRow {
  return { name, exit, tars: layers };
}

/** A row with one layer of these entries. */
function files(name: string, exit: number, ...entries: readonly Entry[]): TreeRow {
  return tars(name, exit, [tarOf(...entries.map((entry) => ({ ...OWNER, ...entry })))]);
}

/** Options that need no root. */
const OWNER = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

/** A header with these bytes at 124, where the size stands, and a checksum that is right. */
function sized(size: Buffer, sizeBytes = 0): Buffer {
  const header = tarHeader({ type: '0', name: 'lie', sizeBytes, ...IDS });
  size.copy(header, 124);
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return Buffer.concat([header, TAR_END]);
}

/** An entry whose pax header has these records. */
function pax(records: Readonly<Record<string, string>>): Buffer {
  const bytes = Buffer.concat(
    Object.entries(records).map(([key, value]) => paxRecord(key, Buffer.from(value))),
  );
  const header = tarHeader({ type: '0', name: 'it', sizeBytes: 5, ...IDS, ...OWNER, records: bytes });
  return Buffer.concat([header, Buffer.from('hello'), tarPadding(5), TAR_END]);
}

function typed(type: string): Buffer {
  const header = tarHeader({ type: '0', name: 'it', sizeBytes: 0, ...IDS });
  header.write(type, 156, 'latin1');
  header.fill(' ', 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return Buffer.concat([header, TAR_END]);
}

const UP = '../'.repeat(20);
const LINKS = Array.from(
  { length: 60 },
  (_, at): Entry => ({ type: '2', name: `l${at}`, linkName: `l${at + 1}` }),
);

export const TREES: readonly TreeRow[] = [
  tars('a file that is longer than its tar', 6, [sized(Buffer.from('77777777777\0'))]),
  tars('a file of negative size', 6, [sized(Buffer.alloc(12, 0xff))]),
  tars('a file of 2^70 bytes', 6, [sized(Buffer.from([0x80, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0]))]),
  tars('a size that is no number', 6, [sized(Buffer.from('99999999999\0'))]),
  tars('a pax header with a size that lies', 6, [pax({ size: '99999999' })]),
  tars('a pax header with a negative size', 6, [pax({ size: '-1' })]),
  tars('a pax header with a NUL in the path', 6, [pax({ path: 'a\0b' })]),
  tars('a path of 5000 bytes', 6, [pax({ path: 'x/'.repeat(2500) })]),
  tars('a sparse file of an unknown format', 8, [pax({ 'GNU.sparse.major': '2' })]),
  tars('a sparse file of 8 EiB', 6, [
    pax({ 'GNU.sparse.map': '0,5', 'GNU.sparse.size': String(2n ** 63n - 1n) }),
  ]),
  tars('a sparse file of old GNU tar in a header of others', 8, [typed('S')]),
  tars('an entry of an unknown type', 8, [typed('Z')]),
  tars('a pax header of 2 MiB', 6, [pax({ comment: 'x'.repeat(2 ** 21) })]),
  tars('noise in place of a tar', 6, [Buffer.alloc(2048, 7)]),
  tars('a tar that ends inside a header', 6, [Buffer.concat([tarOf({ name: 'a' }).subarray(0, 700)])]),
  files('a file above the root', 0, { name: `${UP}${PLANTED.slice(1)}`, content: 'x' }),
  files('a file with an absolute name', 0, { name: PLANTED, content: 'x' }),
  files('a directory above the root', 0, { type: '5', name: `a/${UP}${PLANTED.slice(1)}/` }),
  files(
    'a file behind a link that leads out',
    0,
    { type: '2', name: 'out', linkName: `${UP}..` },
    { name: `out/${PLANTED.slice(1)}`, content: 'x' },
  ),
  files(
    'a file behind an absolute link',
    0,
    { type: '2', name: 'out', linkName: '/' },
    { name: `out/${PLANTED.slice(1)}`, content: 'x' },
  ),
  files(
    'a file in the place of a link that leads out',
    0,
    { type: '2', name: 'it', linkName: PLANTED },
    { name: 'it', content: 'x' },
  ),
  files('a link that leads out, which is only a link', 0, {
    type: '2',
    name: 'it',
    linkName: `${UP}etc/passwd`,
  }),
  files('a hard link to nothing', 6, { type: '1', name: 'it', linkName: 'nothing' }),
  files('a hard link to a file outside', 6, { type: '1', name: 'it', linkName: `${UP}etc/passwd` }),
  files('a hard link to an absolute file', 6, { type: '1', name: 'it', linkName: '/etc/passwd' }),
  files('a hard link to a directory', 6, { type: '5', name: 'd/' }, { type: '1', name: 'it', linkName: 'd' }),
  files(
    'a hard link through a link that leads out',
    6,
    { type: '2', name: 'out', linkName: UP },
    { type: '1', name: 'it', linkName: 'out/etc/passwd' },
  ),
  files(
    'links in a circle',
    6,
    { type: '2', name: 'a', linkName: 'b' },
    { type: '2', name: 'b', linkName: 'a' },
    {
      name: 'a/x',
    },
  ),
  files('60 links in a row', 6, ...LINKS, { name: 'l0/x' }),
  files('a whiteout of the directory itself', 6, { name: 'd/.wh..' }),
  files('a whiteout of the directory above', 6, { name: 'd/.wh...' }),
  files('a whiteout of nothing', 6, { name: '.wh.' }),
  files('a whiteout above the root', 0, { name: `${UP}.wh.etc` }),
  files('an owner that wraps in 32 bits', 0, { name: 'it', uid: 2 ** 32 + OWNER.uid }),
  files('a device that no system has', 6, { type: '4', name: 'it', devMajor: 5000, devMinor: 1 }),
  files('a root that is a link', 0, { type: '2', name: './', linkName: '/etc' }, { name: 'a', content: 'x' }),
  files('a name with a newline and an escape', 0, { name: 'a\n\u001b[2J', content: 'x' }),
  tars('a link in one layer, and a file behind it in the next', 0, [
    tarOf({ type: '2', name: 'out', linkName: UP, ...OWNER }),
    tarOf({ name: `out/${PLANTED.slice(1)}`, content: 'x', ...OWNER }),
  ]),
];

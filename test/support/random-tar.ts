import { TAR_END, type TarItem, tarHeader, tarPadding } from '../../src/format/tar-writer.js';
import { noise } from './layout.js';
import type { Random } from './random.js';
import { editedHeader } from './tars.js';

/** The state of a random tar while it is built. */
interface Draft {
  readonly parts: Buffer[];
  /** Files that hard links can point at. */
  readonly files: (string | Buffer)[];
  /** Contents that further files can repeat. */
  readonly contents: Buffer[];
}

/** Sizes at which a tar, a page or a chunk begins another block. */
const SIZES = [0, 1, 511, 512, 513, 4095, 4096, 4097, 2 ** 16];

/** GNU tar's record: what an archive is padded to. */
const RECORD_BYTES = 10_240;

/**
 * A valid tar of random entries: files of awkward sizes, of zeros, of equal contents; links, directories; names that
 * are long in the way of pax or of GNU, or not UTF-8; extended attributes; the same name twice; any end an archive may have.
 */
export function randomTar(random: Random): Buffer {
  const entries = randomEntries(random);
  const end = random.int(0, 9);
  // The two end blocks may be missing, or be followed by zeros up to a whole record.
  const tar = end > 0 || entries.length === 0 ? Buffer.concat([entries, TAR_END]) : entries;
  if (end < 5) return tar;
  return Buffer.concat([tar, Buffer.alloc((RECORD_BYTES - (tar.length % RECORD_BYTES)) % RECORD_BYTES)]);
}

/** Returns such a tar without its end, so that more entries may follow. */
export function randomEntries(random: Random): Buffer {
  const draft: Draft = { parts: [], files: [], contents: [] };
  const count = random.chance(0.1) ? random.int(0, 1) : random.int(2, 40);
  for (let row = 0; row < count; row += 1) addEntry(draft, random, row);
  return Buffer.concat(draft.parts);
}

function addEntry(draft: Draft, random: Random, row: number): void {
  const name = randomName(random, row);
  const target = draft.files[random.int(0, draft.files.length - 1)];
  const kind = random.int(0, 9);
  if (kind === 0) {
    push(draft, random, { type: '5', name: Buffer.concat([Buffer.from(name), Buffer.from('/')]) });
  } else if (kind === 1) {
    push(draft, random, { type: '2', name, linkName: randomName(random, row + 1) });
  } else if (kind === 2 && target !== undefined) {
    push(draft, random, { type: '1', name, linkName: target });
  } else {
    const content = randomContent(draft, random);
    draft.files.push(push(draft, random, { type: '0', name, sizeBytes: content.length }));
    draft.parts.push(content, tarPadding(content.length));
    draft.contents.push(content);
  }
}

/** Adds the headers of an entry. Returns its final name. */
function push(
  draft: Draft,
  random: Random,
  own: Pick<TarItem, 'type' | 'name'> & Partial<TarItem>,
): string | Buffer {
  const plain = {
    mode: 0o644,
    uid: 0,
    gid: 0,
    sizeBytes: 0,
    mtimeSeconds: 1_700_000_000,
    mtimeNanos: 0,
    ...own,
  };
  const extra = random.int(0, 9);
  if (extra === 0) {
    const name = Buffer.from(`${'long/'.repeat(random.int(20, 60))}${draft.parts.length}`);
    draft.parts.push(gnuLongName(name), tarHeader({ ...plain, name: name.subarray(0, 100) }));
    return name;
  }
  if (extra === 1) {
    const name = `xattr-${draft.parts.length}`;
    draft.parts.push(xattrHeader(random), tarHeader({ ...plain, linkName: 'short', name }));
    return name;
  }
  const item = {
    ...plain,
    mode: random.chance(0.5) ? 0o755 : 0o4711,
    uid: random.chance(0.1) ? 2 ** 31 + random.int(0, 99) : random.int(0, 1000),
    mtimeSeconds: random.chance(0.1) ? 0 : random.int(1, 2_000_000_000),
    mtimeNanos: random.chance(0.2) ? random.int(1, 999_999_999) : 0,
  };
  draft.parts.push(tarHeader(item));
  return own.name;
}

function randomName(random: Random, row: number): string | Buffer {
  const kind = random.int(0, 9);
  if (kind === 0) return `${'directory-with-a-long-name/'.repeat(random.int(4, 12))}${row}`;
  if (kind === 1) return Buffer.concat([Buffer.from(`bytes-${row}-`), Buffer.from([0xff, 0xc3, 0x28])]);
  if (kind === 2) return `wörter/${row}-漢字\n`;
  if (kind === 3) return `twice-${random.int(0, 3)}`;
  return `dir-${random.int(0, 3)}/file-${row}`;
}

function randomContent(draft: Draft, random: Random): Buffer {
  const earlier = draft.contents[random.int(0, draft.contents.length - 1)];
  if (earlier !== undefined && random.chance(0.15)) return earlier;
  const isLarge = random.chance(0.1);
  const sizeBytes = isLarge ? random.int(100_000, 400_000) : SIZES[random.int(0, SIZES.length - 1)]!;
  const kind = random.int(0, 3);
  if (kind === 0) return Buffer.alloc(sizeBytes);
  if (kind === 1) return Buffer.alloc(sizeBytes, `line ${random.int(0, 999)}\n`);
  const bytes = noise(random.int(1, 1_000_000), sizeBytes);
  // A hole, which chunked writers cut out.
  if (kind === 2) bytes.fill(0, random.int(0, sizeBytes), sizeBytes - random.int(0, sizeBytes >> 2));
  return bytes;
}

/** GNU's entry before one with a name that the header has no room for. */
function gnuLongName(name: Buffer): Buffer {
  return metaEntry('L', Buffer.concat([name, Buffer.from([0])]));
}

/** A pax header with extended attributes (`SCHILY.xattr.`), one of them not text. */
function xattrHeader(random: Random): Buffer {
  const value = noise(random.int(1, 1000), random.int(1, 300));
  const records = [
    paxRecord('SCHILY.xattr.user.note', Buffer.from('hello')),
    paxRecord('SCHILY.xattr.security.capability', value),
  ];
  return metaEntry('x', Buffer.concat(records));
}

/** `length key=value\n`, where the length counts its own digits. */
function paxRecord(key: string, value: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')]);
  const digits = [1, 2, 3].find((count) => String(body.length + count).length === count)!;
  return Buffer.concat([Buffer.from(String(body.length + digits)), body]);
}

function metaEntry(type: string, body: Buffer): Buffer {
  const item = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 };
  const header = tarHeader({ ...item, type: '0', name: 'meta', sizeBytes: body.length });
  return Buffer.concat([editedHeader(header, { 156: type }), body, tarPadding(body.length)]);
}

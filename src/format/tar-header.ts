import { PullError } from './error.js';

/** A time as tar can state it: whole seconds since 1970 and 0 to 999,999,999 nanoseconds on top. */
export interface TarTime {
  readonly seconds: number;
  readonly nanos: number;
}

/** What a tar says about one entry, extended headers merged in. Names are bytes: they need not be UTF-8. */
export interface TarEntry {
  /** The type flag: `0` file, `1` hard link, `2` symlink, `3` and `4` devices, `5` directory, `6` fifo. */
  type: string;
  name: Buffer;
  linkName: Buffer;
  mode: number;
  uid: number;
  gid: number;
  sizeBytes: number;
  mtime: TarTime;
  atime: TarTime | undefined;
  ctime: TarTime | undefined;
  devMajor: number;
  devMinor: number;
  xattrs: Map<string, Buffer>;
}

const ZERO_BLOCK = Buffer.alloc(512);

/** Whether the block is one of the two that end an archive. */
export function isZeroBlock(block: Buffer): boolean {
  return block.equals(ZERO_BLOCK);
}

/** The bytes before the first NUL. */
export function textOf(field: Buffer): Buffer {
  const end = field.indexOf(0);
  return end < 0 ? field : field.subarray(0, end);
}

/**
 * The entry that one 512-byte header states.
 * @throws PullError `metadata-malformed` when the checksum or a number is wrong
 */
export function parseHeader(block: Buffer): TarEntry {
  checkSum(block);
  const magic = block.toString('latin1', 257, 265);
  const entry: TarEntry = {
    type: String.fromCharCode(block[156]!),
    name: textOf(block.subarray(0, 100)),
    linkName: textOf(block.subarray(157, 257)),
    mode: numberAt(block, 100, 8),
    uid: numberAt(block, 108, 8),
    gid: numberAt(block, 116, 8),
    sizeBytes: sizeOf(numberAt(block, 124, 12)),
    mtime: { seconds: numberAt(block, 136, 12), nanos: 0 },
    atime: undefined,
    ctime: undefined,
    devMajor: 0,
    devMinor: 0,
    xattrs: new Map(),
  };
  const isUstar = magic.startsWith('ustar\0');
  const isGnu = magic === 'ustar  \0';
  if (isUstar || isGnu) {
    entry.devMajor = numberAt(block, 329, 8);
    entry.devMinor = numberAt(block, 337, 8);
  }
  if (isGnu) {
    entry.atime = timeAt(block, 345);
    entry.ctime = timeAt(block, 357);
  } else if (isUstar) {
    const prefix = textOf(block.subarray(345, 500));
    if (prefix.length > 0) entry.name = Buffer.concat([prefix, Buffer.from('/'), entry.name]);
  }
  return entry;
}

/**
 * The records of a pax extended header (POSIX pax, "pax Extended Header"); bytes as latin1, so that nothing is lost.
 * @throws PullError `metadata-malformed` when a record is
 */
export function parsePax(body: Buffer): Map<string, string> {
  const text = body.toString('latin1');
  const records = new Map<string, string>();
  for (let at = 0; at < text.length; ) {
    const space = text.indexOf(' ', at);
    const digits = text.slice(at, space);
    const end = at + Number(digits);
    if (space < 0 || !/^\d{1,7}$/.test(digits) || end > text.length || text[end - 1] !== '\n') {
      throw malformed('a pax record');
    }
    const equals = text.indexOf('=', space);
    if (equals <= space + 1 || equals >= end) throw malformed('a pax record');
    records.set(text.slice(space + 1, equals), text.slice(equals + 1, end - 1));
    at = end;
  }
  return records;
}

/**
 * Lets pax records replace what the header says. Unknown records mean nothing here.
 * @throws PullError `unsupported` for GNU's sparse records, whose content is not the file
 */
export function applyPax(entry: TarEntry, records: ReadonlyMap<string, string>): void {
  for (const [key, value] of records) {
    if (key.startsWith('GNU.sparse.')) throw new PullError('unsupported', 'the tar holds a sparse file');
    if (key.startsWith('SCHILY.xattr.')) {
      entry.xattrs.set(key.slice('SCHILY.xattr.'.length), Buffer.from(value, 'latin1'));
    } else if (value !== '') {
      applyRecord(entry, key, value);
    }
  }
}

function applyRecord(entry: TarEntry, key: string, value: string): void {
  switch (key) {
    case 'path':
      entry.name = Buffer.from(value, 'latin1');
      break;
    case 'linkpath':
      entry.linkName = Buffer.from(value, 'latin1');
      break;
    case 'uid':
    case 'gid':
      entry[key] = integerOf(value);
      break;
    case 'size':
      entry.sizeBytes = sizeOf(integerOf(value));
      break;
    case 'mtime':
    case 'atime':
    case 'ctime':
      entry[key] = paxTime(value);
      break;
  }
}

function paxTime(value: string): TarTime {
  const match = /^(-?\d{1,12})(?:\.(\d*))?$/.exec(value);
  if (match === null) throw malformed('a time');
  const seconds = Number(match[1]);
  const nanos = Number((match[2] ?? '').slice(0, 9).padEnd(9, '0'));
  if (!value.startsWith('-') || nanos === 0) return { seconds, nanos };
  return { seconds: seconds - 1, nanos: 1e9 - nanos };
}

function timeAt(block: Buffer, offset: number): TarTime | undefined {
  return block[offset] === 0 ? undefined : { seconds: numberAt(block, offset, 12), nanos: 0 };
}

/** Octal digits between blanks and NULs, or base-256 when the first bit is set (GNU). */
function numberAt(block: Buffer, offset: number, length: number): number {
  const field = block.subarray(offset, offset + length);
  if ((field[0]! & 0x80) !== 0) return base256(field);
  const digits = field.toString('latin1').replace(/^[ \0]+|[ \0]+$/g, '');
  const text = digits.split('\0', 1)[0]!;
  if (text === '') return 0;
  if (!/^[0-7]+$/.test(text)) throw malformed('a number');
  return Number.parseInt(text, 8);
}

function base256(field: Buffer): number {
  const value = BigInt.asIntN(field.length * 8 - 1, BigInt(`0x${field.toString('hex')}`));
  return safe(Number(value));
}

function integerOf(value: string): number {
  if (!/^-?\d{1,16}$/.test(value)) throw malformed('a number');
  return safe(Number(value));
}

function safe(value: number): number {
  if (!Number.isSafeInteger(value)) throw malformed('a number');
  return value;
}

function sizeOf(value: number): number {
  if (value < 0) throw malformed('a size');
  return value;
}

function checkSum(block: Buffer): void {
  let unsigned = 8 * 0x20;
  let signed = unsigned;
  for (let at = 0; at < 512; at += 1) {
    if (at === 148) at = 156;
    const byte = block[at]!;
    unsigned += byte;
    signed += (byte << 24) >> 24;
  }
  const stated = numberAt(block, 148, 8);
  if (stated !== unsigned && stated !== signed) throw malformed('a header');
}

function malformed(what: string): PullError {
  return new PullError('metadata-malformed', `the tar cannot be read: ${what} in it is malformed`);
}

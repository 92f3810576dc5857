import {
  idAt,
  idOf,
  integerOf,
  isGnuHeader,
  malformedTar,
  numberAt,
  parsePax,
  sizeFieldOf,
  sizeOf,
  textOf,
  verifyHeader,
} from './tar-fields.js';
import { type SparseRecords, sparseRecords } from './tar-sparse.js';

/** A time in a tar: whole seconds since 1970 plus 0 to 999,999,999 nanoseconds. */
export interface TarTime {
  readonly seconds: number;
  readonly nanos: number;
}

/**
 * An entry of a tar with its extended headers merged in. Names are bytes: they need not be UTF-8.
 */
export interface TarEntry {
  /**
   * The type flag: `0` file, `1` hard link, `2` symlink, `3` and `4` devices, `5` directory, `6`
   * fifo, `S` sparse file (GNU).
   */
  type: string;
  name: Buffer;
  linkName: Buffer;
  mode: number;
  /** IDs have 32 bits; the largest leaves the owner unchanged (chown(2)). */
  uid: number;
  gid: number;
  sizeBytes: number;
  mtime: TarTime;
  atime: TarTime | undefined;
  ctime: TarTime | undefined;
  devMajor: number;
  devMinor: number;
  xattrs: ReadonlyMap<string, Buffer>;
  /** The fields of a sparse file in a pax format: its content in the tar lacks the holes. */
  sparse: SparseRecords | undefined;
}

/** Shared by most entries: a map for each would be most of their garbage. */
const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

/**
 * Returns the entry that a 512-byte header states.
 * @throws PullError `metadata-malformed` if the checksum or a number is wrong
 */
export function parseHeader(block: Buffer): TarEntry {
  verifyHeader(block);
  const entry: TarEntry = {
    type: String.fromCharCode(block[156]!),
    name: textOf(block.subarray(0, 100)),
    linkName: textOf(block.subarray(157, 257)),
    mode: numberAt(block, 100, 8),
    uid: idAt(block, 108, 8),
    gid: idAt(block, 116, 8),
    sizeBytes: sizeFieldOf(block),
    mtime: { seconds: numberAt(block, 136, 12), nanos: 0 },
    atime: undefined,
    ctime: undefined,
    devMajor: 0,
    devMinor: 0,
    xattrs: NO_XATTRS,
    sparse: undefined,
  };
  const isUstar = block.toString('latin1', 257, 263) === 'ustar\0';
  const isGnu = isGnuHeader(block);
  if (isUstar || isGnu) {
    entry.devMajor = numberAt(block, 329, 8);
    entry.devMinor = numberAt(block, 337, 8);
  }
  if (isGnu && !hasGoPrefix(block)) {
    entry.atime = timeAt(block, ATIME_AT);
    entry.ctime = timeAt(block, CTIME_AT);
  } else if (isUstar || isGnu) {
    const prefix = textOf(block.subarray(PREFIX_AT, PREFIX_END));
    if (prefix.length > 0) entry.name = Buffer.concat([prefix, Buffer.from('/'), entry.name]);
  }
  return entry;
}

/** Offsets of the first part of a long name in ustar headers, and of two times in GNU headers. */
const PREFIX_AT = 345;
const PREFIX_END = 500;
const ATIME_AT = 345;
const CTIME_AT = 357;
const TIME_BYTES = 12;
/** A time in GNU's fields, which are full: digits behind zeros or blanks, and a NUL or a blank. */
const OCTAL_TIME = /^ *[0-7]+[ \0]$/;

/**
 * Whether a header with GNU's magic has a prefix in place of the times: Go before 1.8, and so
 * docker up to 17.05, wrote that. No path there looks like two times.
 */
function hasGoPrefix(block: Buffer): boolean {
  return !isTimeOrNone(block, ATIME_AT) || !isTimeOrNone(block, CTIME_AT);
}

function isTimeOrNone(block: Buffer, offset: number): boolean {
  const first = block[offset]!;
  // Base-256 begins with one of two bytes that no UTF-8 begins with.
  if (first === 0 || first === 0x80 || first === 0xff) return true;
  return OCTAL_TIME.test(block.toString('latin1', offset, offset + TIME_BYTES));
}

/** The extended headers read so far of the entry that follows them. */
export class ExtendedHeaders {
  #pax: ReadonlyMap<string, string> | undefined;
  #longName: Buffer | undefined;
  #longLink: Buffer | undefined;

  /**
   * Adds an extended header of type `x`, `L` or `K`.
   * @throws PullError `metadata-malformed` if a pax record is malformed
   */
  add(type: string, body: Buffer): void {
    if (type === 'x') this.#pax = parsePax(body);
    else if (type === 'L') this.#longName = textOf(body);
    else this.#longLink = textOf(body);
  }

  /**
   * Merges the extended headers into the entry and clears them.
   * @throws PullError `metadata-malformed` for a malformed record, `unsupported` as `sparseRecords`
   */
  complete(entry: TarEntry): void {
    if (this.#pax !== undefined) applyPax(entry, this.#pax);
    if (this.#longName !== undefined) entry.name = this.#longName;
    if (this.#longLink !== undefined) entry.linkName = this.#longLink;
    this.#pax = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
    // Archives from before POSIX have no type for files, and mark directories by a slash.
    if (entry.type === '\0') entry.type = entry.name.at(-1) === 0x2f ? '5' : '0';
  }
}

/**
 * Overwrites fields with those of pax records. Unknown records are ignored. @throws as `complete`
 */
function applyPax(entry: TarEntry, records: ReadonlyMap<string, string>): void {
  const xattrs = new Map<string, Buffer>();
  let isSparse = false;
  for (const [key, value] of records) {
    if (key.startsWith('SCHILY.xattr.')) {
      xattrs.set(key.slice('SCHILY.xattr.'.length), Buffer.from(value, 'latin1'));
    } else if (key.startsWith(SPARSE)) isSparse = true;
    else if (value !== '') applyRecord(entry, key, value);
  }
  if (xattrs.size > 0) entry.xattrs = xattrs;
  if (isSparse) applySparse(entry, records);
}

const SPARSE = 'GNU.sparse.';

/**
 * The path in the header of a sparse file is for readers that do not know the format: they extract
 * data and map under it.
 */
function applySparse(entry: TarEntry, records: ReadonlyMap<string, string>): void {
  entry.sparse = sparseRecords(records);
  const name = records.get('GNU.sparse.name') ?? '';
  if (entry.sparse !== undefined && name !== '') entry.name = Buffer.from(name, 'latin1');
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
      entry[key] = idOf(value);
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
  const match = /^(-?\d{1,15})(?:\.(\d*))?$/.exec(value);
  if (match === null) throw malformedTar('a time');
  const seconds = Number(match[1]);
  const nanos = Number((match[2] ?? '').slice(0, 9).padEnd(9, '0'));
  if (!value.startsWith('-') || nanos === 0) return { seconds, nanos };
  return { seconds: seconds - 1, nanos: 1e9 - nanos };
}

function timeAt(block: Buffer, offset: number): TarTime | undefined {
  return block[offset] === 0 ? undefined : { seconds: numberAt(block, offset, 12), nanos: 0 };
}

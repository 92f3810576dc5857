import { PullError } from './error.js';
import {
  integerOf,
  malformedTar,
  numberAt,
  parsePax,
  sizeFieldOf,
  sizeOf,
  textOf,
  verifyHeader,
} from './tar-fields.js';

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
  xattrs: ReadonlyMap<string, Buffer>;
}

/** Of most entries: a map for each would be most of what they leave to the garbage collector. */
const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();

/**
 * The entry that one 512-byte header states.
 * @throws PullError `metadata-malformed` when the checksum or a number is wrong
 */
export function parseHeader(block: Buffer): TarEntry {
  verifyHeader(block);
  const magic = block.toString('latin1', 257, 265);
  const entry: TarEntry = {
    type: String.fromCharCode(block[156]!),
    name: textOf(block.subarray(0, 100)),
    linkName: textOf(block.subarray(157, 257)),
    mode: numberAt(block, 100, 8),
    uid: numberAt(block, 108, 8),
    gid: numberAt(block, 116, 8),
    sizeBytes: sizeFieldOf(block),
    mtime: { seconds: numberAt(block, 136, 12), nanos: 0 },
    atime: undefined,
    ctime: undefined,
    devMajor: 0,
    devMinor: 0,
    xattrs: NO_XATTRS,
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

/** What extended headers have said of the entry that follows them. */
export class ExtendedHeaders {
  #pax: ReadonlyMap<string, string> | undefined;
  #longName: Buffer | undefined;
  #longLink: Buffer | undefined;

  /**
   * Takes what an extended header of this type says: `x`, `L` or `K`.
   * @throws PullError `metadata-malformed` when a pax record is malformed
   */
  take(type: string, body: Buffer): void {
    if (type === 'x') this.#pax = parsePax(body);
    else if (type === 'L') this.#longName = textOf(body);
    else this.#longLink = textOf(body);
  }

  /**
   * Completes the entry, and forgets what was said.
   * @throws PullError `metadata-malformed` when a record is malformed, `unsupported` as `applyPax`
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
 * Lets pax records replace what the header says. Unknown records mean nothing here.
 * @throws PullError `unsupported` for GNU's sparse records, whose content is not the file
 */
function applyPax(entry: TarEntry, records: ReadonlyMap<string, string>): void {
  const xattrs = new Map<string, Buffer>();
  for (const [key, value] of records) {
    if (key.startsWith('GNU.sparse.')) throw new PullError('unsupported', 'the tar holds a sparse file');
    if (key.startsWith('SCHILY.xattr.')) {
      xattrs.set(key.slice('SCHILY.xattr.'.length), Buffer.from(value, 'latin1'));
    } else if (value !== '') {
      applyRecord(entry, key, value);
    }
  }
  if (xattrs.size > 0) entry.xattrs = xattrs;
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
  if (match === null) throw malformedTar('a time');
  const seconds = Number(match[1]);
  const nanos = Number((match[2] ?? '').slice(0, 9).padEnd(9, '0'));
  if (!value.startsWith('-') || nanos === 0) return { seconds, nanos };
  return { seconds: seconds - 1, nanos: 1e9 - nanos };
}

function timeAt(block: Buffer, offset: number): TarTime | undefined {
  return block[offset] === 0 ? undefined : { seconds: numberAt(block, offset, 12), nanos: 0 };
}

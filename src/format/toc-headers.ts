import type { TarTime } from './tar-header.js';
import { paxRecord, type TarItem, tarHeader } from './tar-writer.js';
import { scanToc, type TocEntry, tocError } from './toc.js';

/**
 * The tar's type flag for each type of a TOC (containers/storage, pkg/chunked/internal/minimal;
 * stargz-snapshotter, estargz/types.go).
 */
const TYPES: ReadonlyMap<unknown, TarItem['type']> = new Map([
  ['reg', '0'],
  ['hardlink', '1'],
  ['symlink', '2'],
  ['char', '3'],
  ['block', '4'],
  ['dir', '5'],
  ['fifo', '6'],
]);

/** Larger than any device number that Linux has, and what ustar has room for. */
const MAX_DEVICE = 0o7777777;

/** What Go's encoder writes for bytes that are not UTF-8. */
const REPLACEMENT = Buffer.from('\ufffd');

/** RFC 3339, as Go writes it. */
const TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/;

type Fields = Readonly<Record<string, unknown>>;

/**
 * Calls `visit` with a tar header for each entry of a TOC, in order, and the length of the content
 * behind it. Files that are not empty are the contents of the layer's table. Fields that a TOC
 * leaves out are zeros.
 * @throws PullError `metadata-malformed` if the TOC is, or cannot tell what the tar has, such as a
 *   name that is not UTF-8; what `visit` throws
 */
export function eachTocHeader(toc: Buffer, visit: (header: Buffer, contentBytes: number) => void): void {
  scanToc(toc, (entry) => {
    if (entry.type === 'chunk') return true;
    const sizeBytes = entry.type === 'reg' ? entry.sizeBytes : 0;
    visit(headerOf(entry, parsed(toc, entry), sizeBytes), sizeBytes);
    return true;
  });
}

function parsed(toc: Buffer, { number, textStart, textBytes }: TocEntry): Fields {
  try {
    return JSON.parse(toc.toString('utf8', textStart, textStart + textBytes)) as Fields;
  } catch {
    throw tocError(number, 'it is not JSON');
  }
}

function headerOf({ number }: TocEntry, fields: Fields, sizeBytes: number): Buffer {
  const type = TYPES.get(fields['type']);
  if (type === undefined) throw tocError(number, 'its type is not known');
  const integer = (name: string) => integerOf(number, name, fields[name]);
  const isLink = type === '1' || type === '2';
  const isDevice = type === '3' || type === '4';
  const { seconds, nanos } = timeOf(number, fields['modtime']);
  return tarHeader({
    type,
    name: textOf(number, 'name', fields['name']),
    linkName: isLink ? textOf(number, 'linkName', fields['linkName']) : '',
    // Some writers state the type here, too.
    mode: integer('mode') & 0o7777,
    uid: integer('uid') >>> 0,
    gid: integer('gid') >>> 0,
    sizeBytes,
    mtimeSeconds: seconds,
    mtimeNanos: nanos,
    devMajor: isDevice ? deviceOf(number, integer('devMajor')) : 0,
    devMinor: isDevice ? deviceOf(number, integer('devMinor')) : 0,
    records: xattrRecords(number, fields['xattrs']),
  });
}

function textOf(number: number, field: string, value: unknown): Buffer {
  if (typeof value !== 'string') throw tocError(number, `${field} is no text`);
  const bytes = Buffer.from(value);
  if (bytes.includes(0) || bytes.includes(REPLACEMENT))
    throw tocError(number, `${field} is not what the tar has: it is not UTF-8`);
  return bytes;
}

function integerOf(number: number, field: string, value: unknown = 0): number {
  const known = value ?? 0;
  if (!Number.isSafeInteger(known)) throw tocError(number, `${field} is no integer`);
  return known as number;
}

function deviceOf(number: number, value: number): number {
  if (value < 0 || value > MAX_DEVICE) throw tocError(number, `it has the device number ${value}`);
  return value;
}

function timeOf(number: number, value: unknown): TarTime {
  if (value === undefined || value === null || value === '') return { seconds: 0, nanos: 0 };
  const [, dateTime, fraction = '', zone] = TIME.exec(String(value)) ?? [];
  const seconds = Date.parse(`${dateTime}${zone}`) / 1000;
  if (Number.isNaN(seconds)) throw tocError(number, 'modtime is no time');
  return { seconds, nanos: Number(fraction.padEnd(9, '0')) };
}

function xattrRecords(number: number, xattrs: unknown): Buffer | undefined {
  if (xattrs === undefined || xattrs === null) return undefined;
  if (typeof xattrs !== 'object') throw tocError(number, 'xattrs is no object');
  return Buffer.concat(
    Object.entries(xattrs).map(([name, value]) => {
      const key = textOf(number, 'xattrs', name).toString();
      const bytes = Buffer.from(String(value), 'base64');
      if (key.includes('=') || bytes.toString('base64') !== value)
        throw tocError(number, 'an extended attribute is not as writers of TOCs state it');
      return paxRecord(`SCHILY.xattr.${key}`, bytes);
    }),
  );
}

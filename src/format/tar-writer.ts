import { paddingOf, TAR_BLOCK_BYTES } from './tar-fields.js';

/** An entry to write. A name that needs it gets a pax header; names are bytes or text. */
export interface TarItem {
  /**
   * Type flag: `0` file, `1` hard link, `2` symlink, `3` and `4` devices, `5` directory, `6` fifo.
   */
  readonly type: '0' | '1' | '2' | '3' | '4' | '5' | '6';
  readonly name: string | Buffer;
  readonly linkName?: string | Buffer;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanos: number;
  readonly devMajor?: number;
  readonly devMinor?: number;
  /** Encoded pax records, such as those of extended attributes. */
  readonly records?: Buffer | undefined;
}

const MAX_ID = 0o7777777;
const MAX_SIZE = 0o77777777777;

/** The two blocks that end an archive. */
export const TAR_END = Buffer.alloc(2 * TAR_BLOCK_BYTES);

const NO_BYTES = Buffer.alloc(0);

/** Returns the padding between a content of this size and the next header. */
export function tarPadding(sizeBytes: number): Buffer {
  return TAR_END.subarray(0, paddingOf(sizeBytes));
}

/**
 * Returns the header of an entry: one ustar block, with a pax header before it for what does not
 * fit (POSIX pax).
 */
export function tarHeader(item: TarItem): Buffer {
  const name = toBytes(item.name);
  const linkName = toBytes(item.linkName ?? '');
  const split = splitName(name);
  const records: Buffer[] = [];
  if (split === undefined) records.push(paxRecord('path', name));
  if (linkName.length > 100) records.push(paxRecord('linkpath', linkName));
  if (item.uid > MAX_ID) records.push(paxRecord('uid', String(item.uid)));
  if (item.gid > MAX_ID) records.push(paxRecord('gid', String(item.gid)));
  if (item.sizeBytes > MAX_SIZE) records.push(paxRecord('size', String(item.sizeBytes)));
  if (item.mtimeNanos !== 0 || item.mtimeSeconds < 0 || item.mtimeSeconds > MAX_SIZE)
    records.push(paxRecord('mtime', timeOf(item)));
  if (item.records !== undefined) records.push(item.records);
  const [prefix, base] = split ?? [NO_BYTES, name.subarray(0, 100)];
  const block = ustarBlock(item, prefix, base, linkName.subarray(0, 100));
  if (records.length === 0) return block;
  const body = Buffer.concat(records);
  const meta = { ...item, type: 'x' as const, sizeBytes: body.length, mode: 0o644 };
  const metaName = Buffer.from('PaxHeaders/entry');
  return Buffer.concat([
    ustarBlock(meta, NO_BYTES, metaName, NO_BYTES),
    body,
    tarPadding(body.length),
    block,
  ]);
}

/**
 * Returns the header of a sparse file in GNU's pax format 1.0 and the map that its content begins
 * with (GNU tar manual, "PAX Format, Version 1.0").
 * @param item has the length of the data, which follows
 * @param bounds start and end in the file of each run of data
 */
export function sparseHeader(item: TarItem, bounds: Float64Array, fileBytes: number): Buffer {
  const name = toBytes(item.name);
  const records = [
    paxRecord('GNU.sparse.major', '1'),
    paxRecord('GNU.sparse.minor', '0'),
    paxRecord('GNU.sparse.name', name),
    paxRecord('GNU.sparse.realsize', String(fileBytes)),
    item.records ?? NO_BYTES,
  ];
  const map = sparseMap(bounds, fileBytes);
  const header = tarHeader({
    ...item,
    name: placeholderOf(name),
    sizeBytes: map.length + item.sizeBytes,
    records: Buffer.concat(records),
  });
  return Buffer.concat([header, map]);
}

/**
 * Returns the name under which a reader without support for sparse files extracts one: not its real
 * name.
 */
function placeholderOf(name: Buffer): Buffer {
  const base = name.lastIndexOf(0x2f) + 1;
  return Buffer.concat([name.subarray(0, base), Buffer.from('GNUSparseFile.0/'), name.subarray(base)]);
}

/**
 * Returns the number of runs, then offset and length of each, one number a line. As in GNU tar, an
 * empty run ends a hole at the end.
 */
function sparseMap(bounds: Float64Array, fileBytes: number): Buffer {
  const lines: number[] = [];
  for (let at = 0; at < bounds.length; at += 2) lines.push(bounds[at]!, bounds[at + 1]! - bounds[at]!);
  if (bounds.at(-1) !== fileBytes) lines.push(fileBytes, 0);
  const text = Buffer.from(`${[lines.length / 2, ...lines].join('\n')}\n`);
  return Buffer.concat([text, tarPadding(text.length)]);
}

function ustarBlock(
  item: Omit<TarItem, 'type'> & { type: string },
  prefix: Buffer,
  base: Buffer,
  linkName: Buffer,
): Buffer {
  // `Buffer.alloc` would allocate memory for each, which costs more than everything written here.
  const block = Buffer.allocUnsafe(TAR_BLOCK_BYTES).fill(0);
  base.copy(block, 0);
  octal(block, 100, 8, item.mode);
  octal(block, 108, 8, item.uid > MAX_ID ? 0 : item.uid);
  octal(block, 116, 8, item.gid > MAX_ID ? 0 : item.gid);
  octal(block, 124, 12, item.sizeBytes > MAX_SIZE ? 0 : item.sizeBytes);
  octal(block, 136, 12, Math.min(MAX_SIZE, Math.max(0, item.mtimeSeconds)));
  block.fill(' ', 148, 156);
  block.write(item.type, 156, 'latin1');
  linkName.copy(block, 157);
  block.write('ustar\x0000', 257, 'latin1');
  octal(block, 329, 8, item.devMajor ?? 0);
  octal(block, 337, 8, item.devMinor ?? 0);
  prefix.copy(block, 345);
  // All other bytes are zeros.
  const sum =
    sumOf(block, 0, base.length) +
    sumOf(block, 100, 157 + linkName.length) +
    sumOf(block, 257, 345 + prefix.length);
  octal(block, 148, 7, sum);
  return block;
}

function sumOf(block: Buffer, start: number, end: number): number {
  let sum = 0;
  for (let at = start; at < end; at += 1) sum += block[at]!;
  return sum;
}

/**
 * Splits a name into ustar's two fields: up to 155 bytes, a slash that is not written, up to 100
 * bytes.
 */
function splitName(name: Buffer): [prefix: Buffer, base: Buffer] | undefined {
  if (name.length <= 100) return [NO_BYTES, name];
  // A name that ends in a slash must have something before it.
  const slash = name.indexOf(0x2f, name.length - 101);
  if (slash <= 0 || slash > 155 || slash === name.length - 1) return undefined;
  return [name.subarray(0, slash), name.subarray(slash + 1)];
}

/** Returns `length key=value\n`, where the length counts its own digits. */
export function paxRecord(key: string, value: string | Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`), toBytes(value), Buffer.from('\n')]);
  let digits = String(body.length).length;
  if (String(body.length + digits).length > digits) digits += 1;
  return Buffer.concat([Buffer.from(String(body.length + digits)), body]);
}

function timeOf({ mtimeSeconds, mtimeNanos }: TarItem): string {
  if (mtimeNanos === 0) return String(mtimeSeconds);
  // Before 1970 the fraction counts away from zero, like the sign.
  const isNegative = mtimeSeconds < 0;
  const seconds = isNegative ? -(mtimeSeconds + 1) : mtimeSeconds;
  const nanos = isNegative ? 1e9 - mtimeNanos : mtimeNanos;
  return `${isNegative ? '-' : ''}${seconds}.${String(nanos).padStart(9, '0').replace(/0+$/, '')}`;
}

/** Writes octal digits and a NUL. */
function octal(block: Buffer, offset: number, length: number, value: number): void {
  let left = value;
  for (let at = offset + length - 2; at >= offset; at -= 1) {
    block[at] = 0x30 + (left % 8);
    left = Math.floor(left / 8);
  }
}

function toBytes(text: string | Buffer): Buffer {
  return typeof text === 'string' ? Buffer.from(text) : text;
}

/** A file to be put into an archive. */
export interface ArchiveMember {
  readonly name: string;
  readonly sizeBytes: number;
}

interface PlacedMember {
  readonly header: Buffer;
  readonly headerStart: number;
  readonly contentStart: number;
}

/** An archive with everything known but the contents. */
export interface ArchivePlan {
  /** In the order of the members. */
  readonly members: readonly PlacedMember[];
  /**
   * Paddings and the end are zeros: a file of this length with headers and contents written at
   * their offsets is the archive.
   */
  readonly sizeBytes: number;
}

/**
 * Plans a tar of these files, readable by everyone, with time 0: the same files make the same
 * bytes.
 */
export function planArchive(members: readonly ArchiveMember[]): ArchivePlan {
  const placed: PlacedMember[] = [];
  let at = 0;
  for (const { name, sizeBytes } of members) {
    const ids = { mode: 0o444, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0 };
    const header = tarHeader({ type: '0', name, sizeBytes, ...ids });
    const contentStart = at + header.length;
    placed.push({ header, headerStart: at, contentStart });
    at = contentStart + sizeBytes + paddingOf(sizeBytes);
  }
  return { members: placed, sizeBytes: at + TAR_END.length };
}

/**
 * Yields the headers of an archive, and the given contents of its first members, each with its
 * offset in the file.
 */
export function* archiveParts(
  { members }: ArchivePlan,
  contents: readonly Buffer[],
): Generator<readonly [bytes: Buffer, offset: number], void, undefined> {
  for (const [row, { header, headerStart, contentStart }] of members.entries()) {
    yield [header, headerStart];
    const bytes = contents[row];
    if (bytes !== undefined) yield [bytes, contentStart];
  }
}

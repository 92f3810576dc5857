import { PullError } from './error.js';
import {
  integerOf,
  MAX_TAR_META_BYTES,
  numberAt,
  SPARSE_EXTENSION_FLAG_AT,
  SPARSE_HEADER_FLAG_AT,
  sizeOf,
  TAR_BLOCK_BYTES,
  unreadableTar,
} from './tar-fields.js';

/** A file with runs of zeros that the tar leaves out. */
export interface SparseMap {
  /** Length of the file. */
  readonly fileBytes: number;
  /**
   * Start and end in the file of each run of bytes in the tar, where they follow each other. They
   * ascend, do not touch, and are not empty. Everything else in the file is zeros.
   */
  readonly bounds: Float64Array;
}

/** The pax records of a sparse file (GNU tar manual, "Storing Sparse Files"). */
export interface SparseRecords {
  readonly fileBytes: number | undefined;
  /**
   * Offset and length of each run in formats 0.0 and 0.1; format 1.0 has them before the data in
   * the content.
   */
  readonly map: readonly number[] | undefined;
}

interface PlacedData {
  readonly contentStart: number;
  readonly contentBytes: number;
  /** Absent if the data is the complete file. */
  readonly sparse?: SparseMap;
}

/**
 * The longest file: the limit of ext4, which keeps every offset an exact integer. Holes cost
 * nothing to read or write.
 */
const MAX_FILE_BYTES = 2 ** 44;

/**
 * The fields of an old GNU header: runs of 24 bytes, the flag for another block, and the length of
 * the file.
 */
const OLD = { runsAt: 386, runs: 4, moreAt: SPARSE_HEADER_FLAG_AT, fileBytesAt: 483 } as const;
/** The same in a block that continues it. */
const CONTINUED = { runsAt: 0, runs: 21, moreAt: SPARSE_EXTENSION_FLAG_AT } as const;
const RUN_BYTES = 24;
const FIELD_BYTES = 12;

const NEWLINE = 0x0a;
/** Most digits of a number in a map: those of the largest exact integer. */
const MAX_DIGITS = 16;

/**
 * Returns the sparse file that the pax records of an entry describe, or undefined if they describe
 * none.
 * @throws PullError `metadata-malformed` for a malformed record, `unsupported` for a version that
 *   GNU tar has not defined
 */
export function sparseRecords(records: ReadonlyMap<string, string>): SparseRecords | undefined {
  const version = [records.get('GNU.sparse.major') ?? '', records.get('GNU.sparse.minor') ?? ''].join('.');
  const map = records.get('GNU.sparse.map');
  if (version === '.' && map === undefined && !records.has('GNU.sparse.numblocks')) return undefined;
  if (!['.', '0.0', '0.1', '1.0'].includes(version))
    throw new PullError(
      'unsupported',
      `a sparse file has the format ${JSON.stringify(version.slice(0, 40))}`,
    );
  const size = records.get('GNU.sparse.size') ?? records.get('GNU.sparse.realsize');
  const fileBytes = size === undefined ? undefined : sizeOf(integerOf(size));
  if (version === '1.0') return { fileBytes, map: undefined };
  const numbers = map === undefined || map === '' ? [] : map.split(',').map(integerOf);
  const count = records.get('GNU.sparse.numblocks');
  if (count !== undefined && integerOf(count) * 2 !== numbers.length)
    throw unreadableTar('a sparse file has not as many parts as it says');
  return { fileBytes, map: numbers };
}

/**
 * Returns where the data of a sparse file in a pax format lies, given its content [start, start +
 * storedBytes) in the tar.
 * @param read returns a block of the tar
 * @throws PullError `metadata-malformed` for a malformed map
 */
export function placePaxData(
  { fileBytes, map }: SparseRecords,
  start: number,
  storedBytes: number,
  read: (position: number) => Buffer,
): PlacedData {
  if (map !== undefined) return placed(map, fileBytes ?? storedBytes, start, storedBytes);
  const { numbers, mapBytes } = readContentMap(start, storedBytes, read);
  return placed(numbers, fileBytes ?? storedBytes, start + mapBytes, storedBytes - mapBytes);
}

/**
 * As `placePaxData`, for an old GNU header, whose map continues in blocks before the content.
 * @throws PullError `metadata-malformed` for a malformed map
 */
export function placeOldData(
  header: Buffer,
  start: number,
  storedBytes: number,
  read: (position: number) => Buffer,
): PlacedData {
  const map = runsOf(header, OLD);
  let at = start;
  for (let more = header[OLD.moreAt] !== 0; more; at += TAR_BLOCK_BYTES) {
    requireShort(at + TAR_BLOCK_BYTES - start);
    const block = read(at);
    for (const number of runsOf(block, CONTINUED)) map.push(number);
    more = block[CONTINUED.moreAt] !== 0;
  }
  return placed(map, sizeOf(numberAt(header, OLD.fileBytesAt, FIELD_BYTES)), at, storedBytes);
}

function runsOf(
  block: Buffer,
  { runsAt, runs }: { readonly runsAt: number; readonly runs: number },
): number[] {
  const numbers: number[] = [];
  for (let at = runsAt; at < runsAt + runs * RUN_BYTES && block[at] !== 0; at += RUN_BYTES)
    numbers.push(numberAt(block, at, FIELD_BYTES), numberAt(block, at + FIELD_BYTES, FIELD_BYTES));
  return numbers;
}

/**
 * Reads the map of format 1.0: decimal numbers, one a line, beginning with the number of runs;
 * padded to full blocks.
 */
function readContentMap(
  start: number,
  storedBytes: number,
  read: (position: number) => Buffer,
): { numbers: number[]; mapBytes: number } {
  const numbers: number[] = [];
  let digits = '';
  for (let mapBytes = 0; ; ) {
    if (mapBytes + TAR_BLOCK_BYTES > storedBytes) throw unreadableTar('the map of a sparse file is cut off');
    const block = read(start + mapBytes);
    mapBytes += TAR_BLOCK_BYTES;
    requireShort(mapBytes);
    for (const byte of block) {
      if (byte !== NEWLINE) {
        digits += String.fromCharCode(byte);
        if (digits.length > MAX_DIGITS) throw unreadableTar('the map of a sparse file is malformed');
        continue;
      }
      numbers.push(integerOf(digits));
      digits = '';
      if (numbers.length === 1 + 2 * numbers[0]!) return { numbers: numbers.slice(1), mapBytes };
    }
  }
}

/** A map may be as long as an extended header, as in Go's reader. */
function requireShort(mapBytes: number): void {
  if (mapBytes > MAX_TAR_META_BYTES) throw unreadableTar('the map of a sparse file is larger than 1 MiB');
}

function placed(
  map: readonly number[],
  fileBytes: number,
  contentStart: number,
  contentBytes: number,
): PlacedData {
  if (fileBytes > MAX_FILE_BYTES) throw unreadableTar('a sparse file is larger than 16 TiB');
  const bounds = boundsOf(map, fileBytes);
  let dataBytes = 0;
  for (let at = 0; at < bounds.length; at += 2) dataBytes += bounds[at + 1]! - bounds[at]!;
  if (dataBytes !== contentBytes)
    throw unreadableTar(`a sparse file has ${contentBytes} bytes where its map has ${dataBytes}`);
  const data = { contentStart, contentBytes };
  return dataBytes === fileBytes ? data : { ...data, sparse: { fileBytes, bounds } };
}

/** Returns starts and ends of the runs, with adjacent ones joined and empty ones left out. */
function boundsOf(map: readonly number[], fileBytes: number): Float64Array {
  if (map.length % 2 !== 0) throw unreadableTar('the map of a sparse file is malformed');
  const bounds: number[] = [];
  let end = 0;
  for (let at = 0; at < map.length; at += 2) {
    const [offset, lengthBytes] = [map[at]!, map[at + 1]!];
    if (offset < end || lengthBytes < 0 || offset + lengthBytes > fileBytes)
      throw unreadableTar('the parts of a sparse file overlap, or lie beyond its end');
    end = offset + lengthBytes;
    if (lengthBytes === 0) continue;
    if (bounds.at(-1) === offset) bounds.pop();
    else bounds.push(offset);
    bounds.push(end);
  }
  return Float64Array.from(bounds);
}

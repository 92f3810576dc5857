import { Column } from './arrays.js';
import { PullError } from './error.js';
import { JsonCursor, jsonText, wordSet } from './json-cursor.js';
import { TAR_BLOCK_BYTES } from './tar-fields.js';
import type { TocEntry } from './toc.js';

/** A larger layer tar is refused: 16 TiB, which keeps every sum of sizes an exact integer. */
export const MAX_TAR_BYTES = 2 ** 44;
/** Lines of one tar-split, two or more for each entry: a million files have some 2.1 million. */
const MAX_TAR_SPLIT_LINES = 8 * 2 ** 20;
/** Decoded bytes written at a time: enough that the write costs more than the call. */
const WRITE_BYTES = 2 ** 20;

const KEYS = wordSet('type name name_raw size payload');
/** Types of a line (tar-split, tar/storage/entry.go): a tar entry, raw bytes. */
const TYPE_FILE = 1;
const TYPE_RAW = 2;

/** One line as numbers. Every call of `visit` gets the same object: copy what is needed later. */
export class TarSplitLine {
  /** From 0. */
  number = 0;
  kind: 'raw' | 'file' = 'raw';
  /** Offset of its bytes in the tar. */
  tarStart = 0;
  /** Length of the raw bytes, or of the file content (0 without content). */
  lengthBytes = 0;
  /** Range of the name in the tar-split; `nameBlob` says that it is base64. */
  nameStart = 0;
  nameEnd = 0;
  nameEscaped = false;
  nameBlob = false;
  /** Range of the base64 text of raw bytes. */
  payloadStart = 0;
  payloadEnd = 0;
}

/**
 * Calls `visit` for each line of a decoded tar-split in order and returns the length of the tar in
 * bytes. Payloads are measured, not decoded: their characters are checked by `copyTarBytes`.
 * @throws PullError `metadata-malformed` with the byte offset or the number of the line; whatever
 *   `visit` throws
 */
export function scanTarSplit(tarSplit: Buffer, visit: (line: TarSplitLine) => void): number {
  const cursor = new JsonCursor(tarSplit, 'The tar-split');
  const line = new TarSplitLine();
  let tarBytes = 0;
  for (let number = 0; cursor.peek() !== -1; number++) {
    if (number >= MAX_TAR_SPLIT_LINES) throw tarSplitError(number, `more than ${MAX_TAR_SPLIT_LINES} lines`);
    line.number = number;
    line.tarStart = tarBytes;
    readLine(cursor, line);
    tarBytes += line.lengthBytes;
    if (tarBytes > MAX_TAR_BYTES) {
      throw tarSplitError(number, `the tar would be longer than ${MAX_TAR_BYTES} bytes`);
    }
    visit(line);
  }
  return tarBytes;
}

function readLine(cursor: JsonCursor, line: TarSplitLine): void {
  line.nameStart = line.nameEnd = line.payloadStart = line.payloadEnd = 0;
  line.nameEscaped = line.nameBlob = false;
  let type = 0;
  let size = 0;
  for (let more = cursor.firstMember(); more; more = cursor.nextMember()) {
    const key = cursor.match(KEYS);
    if (key < 0) cursor.skipValue();
    else if (cursor.skipNull()) continue;
    else if (key === 0) type = cursor.readInteger();
    else if (key === 3) size = cursor.readInteger();
    else if (key === 4) {
      cursor.readPlainString();
      line.payloadStart = cursor.stringStart;
      line.payloadEnd = cursor.stringEnd;
    } else {
      cursor.readString();
      line.nameBlob = key === 2;
      line.nameStart = cursor.stringStart;
      line.nameEnd = cursor.stringEnd;
      line.nameEscaped = cursor.escaped;
    }
  }
  if (type === TYPE_RAW) {
    line.kind = 'raw';
    line.lengthBytes = decodedLength(cursor.bytes, line);
  } else if (type === TYPE_FILE) {
    if (size < 0) throw tarSplitError(line.number, 'size is negative');
    line.kind = 'file';
    line.lengthBytes = size;
  } else {
    throw tarSplitError(line.number, `type ${type} is unknown`);
  }
}

/** Returns the decoded length of padded base64 (RFC 4648, section 4). */
function decodedLength(bytes: Buffer, line: TarSplitLine): number {
  const { payloadStart, payloadEnd } = line;
  const length = payloadEnd - payloadStart;
  if (length === 0) return 0;
  if (length % 4 !== 0) throw tarSplitError(line.number, 'payload is not padded base64');
  const padding = bytes[payloadEnd - 1] !== PADDING ? 0 : bytes[payloadEnd - 2] !== PADDING ? 1 : 2;
  return (length / 4) * 3 - padding;
}

function tarSplitError(number: number, problem: string): PullError {
  return new PullError('metadata-malformed', `tar-split line ${number}: ${problem}`);
}

/**
 * Decodes the tar bytes in `ranges` and writes them one after the other, about 1 MiB at a time. The
 * buffer passed to `write` is reused after it returns.
 * @param ranges ascending, disjoint [start, end) pairs of tar bytes, all raw and none empty
 * @throws PullError `metadata-malformed` for characters that are not base64, `internal` for a range
 *   that is not raw
 */
export function copyTarBytes(tarSplit: Buffer, ranges: Float64Array, write: (bytes: Buffer) => void): void {
  const out = Buffer.allocUnsafe(WRITE_BYTES);
  let used = 0;
  let range = 0;
  let position = ranges[0] ?? 0;
  scanTarSplit(tarSplit, (line) => {
    const lineEnd = line.tarStart + line.lengthBytes;
    while (range < ranges.length && position < lineEnd) {
      if (line.kind !== 'raw' || position < line.tarStart) {
        throw new PullError('internal', `Tar byte ${position} is not the next inline byte`);
      }
      const end = Math.min(ranges[range + 1]!, lineEnd, position + WRITE_BYTES - used);
      decode(tarSplit, line, position - line.tarStart, end - line.tarStart, out, used);
      used += end - position;
      position = end;
      if (used === WRITE_BYTES) {
        write(out);
        used = 0;
      }
      if (position >= ranges[range + 1]!) {
        range += 2;
        position = ranges[range] ?? 0;
      }
    }
  });
  if (range < ranges.length) throw new PullError('internal', `Tar byte ${position} is beyond the tar's end`);
  if (used > 0) write(out.subarray(0, used));
}

const PADDING = 0x3d;
const BASE64 = new Int8Array(256).fill(-1);
for (const [value, char] of [
  ...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/',
].entries()) {
  BASE64[char.charCodeAt(0)] = value;
}

/**
 * Decodes bytes [start, end) of a raw line to `out` at `at`. Implemented here because Buffer's
 * decoder skips characters that are not base64 without an error.
 */
function decode(
  bytes: Buffer,
  line: TarSplitLine,
  start: number,
  end: number,
  out: Buffer,
  at: number,
): void {
  let position = start;
  let to = at;
  const wholeEnd = end - (end % 3);
  while (position < end && position % 3 !== 0) out[to++] = decodeByte(bytes, line, position++);
  let from = line.payloadStart + Math.ceil(position / 3) * 4;
  for (; position < wholeEnd; position += 3) {
    const value =
      (BASE64[bytes[from]!]! << 18) |
      (BASE64[bytes[from + 1]!]! << 12) |
      (BASE64[bytes[from + 2]!]! << 6) |
      BASE64[bytes[from + 3]!]!;
    if (value < 0) throw tarSplitError(line.number, 'payload is not base64');
    out[to] = value >> 16;
    out[to + 1] = value >> 8;
    out[to + 2] = value;
    to += 3;
    from += 4;
  }
  while (position < end) out[to++] = decodeByte(bytes, line, position++);
}

/**
 * Returns byte `position` of a raw line alone: it lies in two adjacent characters of its group of
 * four.
 */
function decodeByte(bytes: Buffer, line: TarSplitLine, position: number): number {
  const third = position % 3;
  const from = line.payloadStart + ((position - third) / 3) * 4 + third;
  const value = (BASE64[bytes[from]!]! << 6) | BASE64[bytes[from + 1]!]!;
  if (value < 0) throw tarSplitError(line.number, 'payload is not base64');
  return (value >> (4 - 2 * third)) & 0xff;
}

/** Bits of `nameForm`. */
const NAME_ESCAPED = 1;
const NAME_BASE64 = 2;

/** The files in a tar-split that have content, in tar order. */
export type TarContents = ReturnType<typeof collectContents>;

/** Returns the contents in a tar-split. @throws PullError `metadata-malformed` */
export function collectContents(tarSplit: Buffer) {
  const tarStart = new Column();
  const sizeBytes = new Column();
  const nameStart = new Column();
  const nameEnd = new Column();
  const nameForm = new Column();
  let contentBytes = 0;
  const tarBytes = scanTarSplit(tarSplit, (line) => {
    if (line.kind !== 'file' || line.lengthBytes === 0) return;
    // This limits the rows by the length of the tar-split, for which memory has been reserved.
    const headerBytes = line.tarStart - contentBytes;
    if (headerBytes < (tarStart.length + 1) * TAR_BLOCK_BYTES)
      throw tarSplitError(line.number, 'no header before it');
    contentBytes += line.lengthBytes;
    tarStart.push(line.tarStart);
    sizeBytes.push(line.lengthBytes);
    nameStart.push(line.nameStart);
    nameEnd.push(line.nameEnd);
    nameForm.push((line.nameEscaped ? NAME_ESCAPED : 0) | (line.nameBlob ? NAME_BASE64 : 0));
  });
  return {
    tarSplit,
    tarBytes,
    count: tarStart.length,
    tarStart: tarStart.filled(),
    sizeBytes: sizeBytes.filled(),
    nameStart: nameStart.filled(),
    nameEnd: nameEnd.filled(),
    nameForm: nameForm.filled(),
  };
}

/**
 * Whether the name in the tar-split is that of the TOC entry. Where a name is not UTF-8 the
 * tar-split has its bytes, and the TOC has U+FFFD, one for each byte as Go decodes and one for each
 * sequence as we do: a run of them counts as one.
 */
export function sameName(tar: TarContents, row: number, toc: Buffer, entry: TocEntry): boolean {
  const { tarSplit } = tar;
  const start = tar.nameStart[row]!;
  const end = tar.nameEnd[row]!;
  const form = tar.nameForm[row]!;
  const base64 = (form & NAME_BASE64) !== 0;
  if (!base64 && tarSplit.compare(toc, entry.nameStart, entry.nameEnd, start, end) === 0) return true;
  const text = jsonText(tarSplit, start, end, (form & NAME_ESCAPED) !== 0);
  const name = base64 ? Buffer.from(text, 'base64').toString('utf8') : text;
  const single = (lossy: string) => lossy.replace(/\ufffd+/g, '\ufffd');
  return single(name) === single(jsonText(toc, entry.nameStart, entry.nameEnd, entry.nameEscaped));
}

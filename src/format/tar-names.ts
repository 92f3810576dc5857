import { PullError } from './error.js';
import {
  isHeaderOnly,
  MAX_TAR_META_BYTES,
  paddingOf,
  parsePax,
  SPARSE_EXTENSION_FLAG_AT,
  SPARSE_HEADER_FLAG_AT,
  TAR_BLOCK_BYTES,
  textOf,
} from './tar-fields.js';
import { parseHeader } from './tar-header.js';

/** An entry of a tar: its headers begin at `start`, its last padding ends before `end`. */
interface TarSpan {
  readonly path: string;
  readonly start: number;
  readonly end: number;
}

/**
 * The entries of a tar with what belongs to each, in order. Names are for messages: what is no UTF-8 is replaced. Ends
 * without an error at the end of the archive, and where no sound header stands: a tar that is damaged may have any there.
 * @param read gives the bytes [start, start + length) of the tar, or undefined where they are gone
 */
export function* tarSpans(
  read: (start: number, lengthBytes: number) => Buffer | undefined,
  tarBytes: number,
): Generator<TarSpan, void, undefined> {
  let start = 0;
  let long: string | undefined;
  for (let at = 0; at + TAR_BLOCK_BYTES <= tarBytes; ) {
    const entry = sound(read(at, TAR_BLOCK_BYTES), parseHeader);
    if (entry === undefined) return;
    const { type } = entry;
    const sizeBytes = isHeaderOnly(type) ? 0 : entry.sizeBytes;
    const map = type === 'S' ? oldMapBytes(at, read) : 0;
    const end = at + TAR_BLOCK_BYTES + map + sizeBytes + paddingOf(sizeBytes);
    if (end > tarBytes) return;
    if (type === 'x' || type === 'L') {
      const meta = sizeBytes <= MAX_TAR_META_BYTES ? read(at + TAR_BLOCK_BYTES, sizeBytes) : undefined;
      const path = sound(meta, type === 'L' ? textOf : paxPath);
      if (path === undefined) return;
      if (path.length > 0) long = path.toString();
    } else if (type !== 'K' && type !== 'g') {
      yield { path: long ?? entry.name.toString(), start, end };
      start = end;
      long = undefined;
    }
    at = end;
  }
}

/** Bytes of the blocks behind a GNU header that continue the map of a sparse file. */
function oldMapBytes(
  headerAt: number,
  read: (start: number, lengthBytes: number) => Buffer | undefined,
): number {
  let mapBytes = 0;
  for (
    let flagAt = SPARSE_HEADER_FLAG_AT;
    mapBytes <= MAX_TAR_META_BYTES;
    flagAt = SPARSE_EXTENSION_FLAG_AT
  ) {
    const block = read(headerAt + mapBytes, TAR_BLOCK_BYTES);
    if (block === undefined || block[flagAt] === 0) break;
    mapBytes += TAR_BLOCK_BYTES;
  }
  return mapBytes;
}

/** The path of a pax extended header, that of a sparse file before any other; empty when it states none. */
function paxPath(meta: Buffer): Buffer {
  const records = parsePax(meta);
  return Buffer.from(records.get('GNU.sparse.name') || records.get('path') || '', 'latin1');
}

/** What `parse` makes of bytes that are there and make sense. */
function sound<T>(bytes: Buffer | undefined, parse: (bytes: Buffer) => T): T | undefined {
  try {
    return bytes && parse(bytes);
  } catch (error) {
    if (error instanceof PullError) return undefined;
    throw error;
  }
}

import type { Digest } from './digest.js';
import { PullError } from './error.js';
import {
  isGnuHeader,
  isHeader,
  isHeaderOnly,
  isZeroBlock,
  MAX_TAR_META_BYTES,
  paddingOf,
  parsePax,
  SPARSE_EXTENSION_FLAG_AT,
  SPARSE_HEADER_FLAG_AT,
  TAR_BLOCK_BYTES,
  textOf,
  unreadableTar,
} from './tar-fields.js';
import { ExtendedHeaders, parseHeader, type TarEntry } from './tar-header.js';
import { placeOldData, placePaxData, type SparseMap } from './tar-sparse.js';
import { quoteBytes } from './text.js';

/** A tar that can be read anywhere. What `read` returns is good until the next call. */
export interface TarSource {
  readonly lengthBytes: number;
  /** The DiffID of the layer that it is, where that is known: errors name it. */
  readonly diffId?: Digest;
  /** The bytes [position, position + lengthBytes), which lie inside the tar. */
  read(position: number, lengthBytes: number): Buffer;
}

/** An entry and where its content lies in the tar. */
export interface PlacedEntry {
  readonly entry: TarEntry;
  readonly contentStart: number;
  readonly contentBytes: number;
  /** The map of a sparse file: its content in the tar lacks the holes. */
  readonly sparse?: SparseMap;
}

/**
 * The entries of a tar, in order, without reading their contents (POSIX pax and ustar, GNU and V7 headers), but for the maps of sparse
 * files. Global pax headers, which state nothing that a file system has, are passed over. `onMeta` is called with the length of every
 * other extended header before it is read, and of a block of a map.
 * @throws PullError `metadata-malformed` for what is no tar, `unsupported` for sparse formats that GNU tar has not defined; both say
 *   where in the tar that is
 */
export function* tarEntries(
  source: TarSource,
  onMeta: (lengthBytes: number) => void = () => {},
): Generator<PlacedEntry, void, undefined> {
  const reader = new EntryReader(source, onMeta);
  for (let placed = reader.next(); placed !== undefined; placed = reader.next()) yield placed;
}

/** Reads one entry after the other. */
class EntryReader {
  readonly #source: TarSource;
  readonly #onMeta: (lengthBytes: number) => void;
  readonly #extended = new ExtendedHeaders();
  #at = 0;
  /** Where the header under way begins, and its entry as far as it is known. */
  #headerAt = 0;
  #entry: TarEntry | undefined;

  constructor(source: TarSource, onMeta: (lengthBytes: number) => void) {
    this.#source = source;
    this.#onMeta = onMeta;
  }

  /** The next entry, or undefined at the end of the archive. @throws as `tarEntries` */
  next(): PlacedEntry | undefined {
    this.#entry = undefined;
    try {
      while (this.#at < this.#source.lengthBytes) {
        this.#headerAt = this.#at;
        const block = Buffer.from(this.#block(this.#at));
        this.#at += TAR_BLOCK_BYTES;
        if (isZeroBlock(block)) {
          this.#endArchive();
          return undefined;
        }
        const entry = parseHeader(block);
        if (!isExtended(entry.type)) return this.#place(entry, block);
        this.#takeMeta(entry);
      }
      return undefined;
    } catch (error) {
      throw this.#located(error);
    }
  }

  #endArchive(): void {
    const { lengthBytes } = this.#source;
    if (this.#at < lengthBytes && !isZeroBlock(this.#block(this.#at)))
      throw unreadableTar('a block of zeros stands between its entries');
  }

  #takeMeta({ type, sizeBytes }: TarEntry): void {
    if (sizeBytes > MAX_TAR_META_BYTES) throw unreadableTar('an extended header is larger than 1 MiB');
    this.#requireInside(this.#at, sizeBytes);
    if (type !== 'g') {
      this.#onMeta(sizeBytes);
      this.#extended.take(type, Buffer.from(this.#source.read(this.#at, sizeBytes)));
    }
    this.#at += sizeBytes + paddingOf(sizeBytes);
  }

  #place(entry: TarEntry, block: Buffer): PlacedEntry {
    this.#entry = entry;
    this.#extended.complete(entry);
    const storedBytes = isHeaderOnly(entry.type) ? 0 : entry.sizeBytes;
    const data = this.#dataOf(entry, block, storedBytes);
    const { contentStart, contentBytes } = data;
    if (contentBytes > this.#source.lengthBytes - contentStart)
      throw unreadableTar('it ends inside an entry');
    this.#at = contentStart + contentBytes + paddingOf(storedBytes);
    return { entry, ...data };
  }

  #dataOf(entry: TarEntry, block: Buffer, storedBytes: number): Omit<PlacedEntry, 'entry'> {
    const start = this.#at;
    const isOld = entry.type === 'S' && entry.sparse === undefined;
    if (!isOld && entry.sparse === undefined) return { contentStart: start, contentBytes: storedBytes };
    if (isHeaderOnly(entry.type)) throw unreadableTar('what is no file cannot be sparse');
    const read = (position: number) => {
      this.#onMeta(TAR_BLOCK_BYTES);
      return this.#block(position);
    };
    if (entry.sparse !== undefined) return placePaxData(entry.sparse, start, storedBytes, read);
    if (!isGnuHeader(block))
      throw new PullError('unsupported', 'the tar holds a sparse file without the header of GNU tar');
    return placeOldData(block, start, storedBytes, read);
  }

  #block(position: number): Buffer {
    this.#requireInside(position, TAR_BLOCK_BYTES);
    return this.#source.read(position, TAR_BLOCK_BYTES);
  }

  #requireInside(position: number, lengthBytes: number): void {
    if (position + lengthBytes > this.#source.lengthBytes) throw unreadableTar('it ends inside an entry');
  }

  /** The name in a header of which something else is wrong, in words. */
  #named(): string {
    if (this.#headerAt + TAR_BLOCK_BYTES > this.#source.lengthBytes) return '';
    const block = this.#source.read(this.#headerAt, TAR_BLOCK_BYTES);
    if (isExtended(String.fromCharCode(block[156]!)) || !isHeader(block)) return '';
    return `, in the entry ${quoteBytes(textOf(block.subarray(0, 100)))}`;
  }

  /** The same error with the place in the tar. */
  #located(error: unknown): unknown {
    if (!(error instanceof PullError) || !['metadata-malformed', 'unsupported'].includes(error.code))
      return error;
    const where =
      this.#entry === undefined
        ? `at byte ${this.#headerAt} of the tar${this.#named()}`
        : `in the entry ${quoteBytes(this.#entry.name)}`;
    return new PullError(error.code, `${error.message}, ${where}`, { hint: error.hint, cause: error });
  }
}

/** Whether a header says something of the entry that follows it. */
function isExtended(type: string): boolean {
  return 'xgLK'.includes(type);
}

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

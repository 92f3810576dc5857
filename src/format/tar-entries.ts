import type { Digest } from './digest.js';
import { PullError, quoteBytes } from './error.js';
import {
  isGnuHeader,
  isHeader,
  isHeaderOnly,
  isZeroBlock,
  MAX_TAR_META_BYTES,
  paddingOf,
  SPARSE_EXTENSION_FLAG_AT,
  SPARSE_HEADER_FLAG_AT,
  TAR_BLOCK_BYTES,
  textOf,
  unreadableTar,
} from './tar-fields.js';
import { ExtendedHeaders, parseHeader, type TarEntry } from './tar-header.js';
import { placeOldData, placePaxData, type SparseMap } from './tar-sparse.js';

/** A tar with random access. The bytes returned by `read` are valid until the next call. */
export interface TarSource {
  readonly lengthBytes: number;
  /** The DiffID of the layer, if known, for errors. */
  readonly diffId?: Digest;
  /** Returns the bytes [position, position + lengthBytes), which lie inside the tar. */
  read(position: number, lengthBytes: number): Buffer;
}

/** An entry and the range of its content in the tar. */
export interface PlacedEntry {
  readonly entry: TarEntry;
  readonly contentStart: number;
  readonly contentBytes: number;
  /** The map of a sparse file, whose content in the tar lacks the holes. */
  readonly sparse?: SparseMap;
}

/**
 * Yields the entries of a tar in order, without reading their contents, except for the maps of
 * sparse files (POSIX pax and ustar, GNU and V7 headers). Global pax headers, which have nothing
 * for a file system, are skipped. `onMeta` is called with the length of every other extended
 * header, and of a block of a map, before it is read.
 * @throws PullError `metadata-malformed` for anything but a tar, `unsupported` for sparse formats
 *   that GNU tar has not defined; both say where in the tar
 */
export function* tarEntries(
  source: TarSource,
  onMeta: (lengthBytes: number) => void = () => {},
): Generator<PlacedEntry, void, undefined> {
  const reader = new EntryReader(source, onMeta);
  for (let placed = reader.next(); placed !== undefined; placed = reader.next()) yield placed;
}

class EntryReader {
  readonly #source: TarSource;
  readonly #onMeta: (lengthBytes: number) => void;
  readonly #extended = new ExtendedHeaders();
  #at = 0;
  /** Offset of the current header, and its entry as far as it is known. */
  #headerAt = 0;
  #entry: TarEntry | undefined;

  constructor(source: TarSource, onMeta: (lengthBytes: number) => void) {
    this.#source = source;
    this.#onMeta = onMeta;
  }

  /** Returns the next entry, or undefined at the end of the archive. @throws as `tarEntries` */
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
        if (!isExtended(entry.type)) return this.#locate(entry, block);
        this.#readMeta(entry);
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

  #readMeta({ type, sizeBytes }: TarEntry): void {
    if (sizeBytes > MAX_TAR_META_BYTES) throw unreadableTar('an extended header is larger than 1 MiB');
    this.#requireInside(this.#at, sizeBytes);
    if (type !== 'g') {
      this.#onMeta(sizeBytes);
      this.#extended.add(type, Buffer.from(this.#source.read(this.#at, sizeBytes)));
    }
    this.#at += sizeBytes + paddingOf(sizeBytes);
  }

  #locate(entry: TarEntry, block: Buffer): PlacedEntry {
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

  #named(): string {
    if (this.#headerAt + TAR_BLOCK_BYTES > this.#source.lengthBytes) return '';
    const block = this.#source.read(this.#headerAt, TAR_BLOCK_BYTES);
    if (isExtended(String.fromCharCode(block[156]!)) || !isHeader(block)) return '';
    return `, in the entry ${quoteBytes(textOf(block.subarray(0, 100)))}`;
  }

  #located(error: unknown): unknown {
    if (!isMalformed(error)) return error;
    const where =
      this.#entry === undefined
        ? `at byte ${this.#headerAt} of the tar${this.#named()}`
        : `in the entry ${quoteBytes(this.#entry.name)}`;
    return new PullError(error.code, `${error.message}, ${where}`, { hint: error.hint, cause: error });
  }
}

/** Whether a header describes the entry that follows it. */
function isExtended(type: string): boolean {
  return 'xgLK'.includes(type);
}

/** An entry of a tar: its headers begin at `start`, its padding ends at `end`. */
interface TarSpan {
  readonly path: string;
  readonly start: number;
  readonly end: number;
}

/**
 * Yields the entries of a tar with their ranges, in order, for messages about damage. Names that
 * are not UTF-8 get replacement characters. Ends without an error at the end of the archive, and
 * where a header is damaged.
 * @param read returns the bytes [start, start + length) of the tar, or undefined if they are lost
 */
export function* tarSpans(
  read: (start: number, lengthBytes: number) => Buffer | undefined,
  tarBytes: number,
): Generator<TarSpan, void, undefined> {
  const bytesAt = (start: number, lengthBytes: number) => {
    const bytes = read(start, lengthBytes);
    if (bytes === undefined) throw unreadableTar('bytes are lost');
    return bytes;
  };
  const extended = new ExtendedHeaders();
  let [start, at] = [0, 0];
  try {
    while (at + TAR_BLOCK_BYTES <= tarBytes) {
      const entry = parseHeader(bytesAt(at, TAR_BLOCK_BYTES));
      const { type } = entry;
      if (!isExtended(type)) extended.complete(entry);
      const sizeBytes = isHeaderOnly(type) ? 0 : entry.sizeBytes;
      const mapBytes = type === 'S' ? oldMapBytes(at, bytesAt) : 0;
      const end = at + TAR_BLOCK_BYTES + mapBytes + sizeBytes + paddingOf(sizeBytes);
      if (end > tarBytes) return;
      if (type === 'x' || type === 'L') {
        if (sizeBytes > MAX_TAR_META_BYTES) return;
        extended.add(type, Buffer.from(bytesAt(at + TAR_BLOCK_BYTES, sizeBytes)));
      } else if (!isExtended(type)) {
        yield { path: entry.name.toString(), start, end };
        start = end;
      }
      at = end;
    }
  } catch (error) {
    if (!isMalformed(error)) throw error;
  }
}

/** Whether the bytes of the tar are the reason of an error, and not the reading of them. */
function isMalformed(error: unknown): error is PullError {
  return error instanceof PullError && ['metadata-malformed', 'unsupported'].includes(error.code);
}

/** Returns the length of the blocks behind a GNU header that continue the map of a sparse file. */
function oldMapBytes(headerAt: number, read: (start: number, lengthBytes: number) => Buffer): number {
  let mapBytes = 0;
  let flagAt = SPARSE_HEADER_FLAG_AT;
  while (read(headerAt + mapBytes, TAR_BLOCK_BYTES)[flagAt] !== 0 && mapBytes <= MAX_TAR_META_BYTES) {
    mapBytes += TAR_BLOCK_BYTES;
    flagAt = SPARSE_EXTENSION_FLAG_AT;
  }
  return mapBytes;
}

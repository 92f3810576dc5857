import {
  isHeaderOnly,
  isZeroBlock,
  MAX_TAR_META_BYTES,
  paddingOf,
  TAR_BLOCK_BYTES,
  unreadableTar,
} from '../format/tar-fields.js';
import { ExtendedHeaders, parseHeader, type TarEntry } from '../format/tar-header.js';

/** Maximum size of the pieces of bytes after the end of the archive, as in tar-split. */
const TRAILER_BYTES = 2 ** 20;

export interface TarHandler {
  /**
   * A new entry; `raw` has all bytes since the last content: padding, extended headers and the
   * header.
   */
  entry(entry: TarEntry, contentBytes: number, raw: Buffer): void;
  /** The next bytes of the content of the last entry. */
  content(bytes: Buffer): void;
  /** Bytes after the last entry: the last padding with the end blocks, then all that follows. */
  trailer(raw: Buffer): void;
}

/**
 * Parses a tar in pieces of any size (POSIX pax and ustar, GNU and V7 headers). `push` and `end`
 * throw PullError `metadata-malformed` for a malformed tar and `unsupported` for sparse formats.
 */
export class TarReader {
  readonly #handler: TarHandler;
  #state: 'header' | 'meta' | 'content' | 'padding' | 'second-end' | 'trailer' = 'header';
  /** Remaining bytes of this state. */
  #remaining = TAR_BLOCK_BYTES;
  /** Pieces of this state, if it is parsed as one block. */
  #gathered: Buffer[] = [];
  #raw: Buffer[] = [];
  #rawBytes = 0;
  #metaType = '';
  #metaBytes = 0;
  #paddingBytes = 0;
  readonly #extended = new ExtendedHeaders();

  constructor(handler: TarHandler) {
    this.#handler = handler;
  }

  push(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#state === 'trailer') {
        this.#trailer(bytes.subarray(at));
        return;
      }
      const part = bytes.subarray(at, at + this.#remaining);
      at += part.length;
      this.#remaining -= part.length;
      if (this.#state === 'content') {
        this.#handler.content(part);
      } else {
        this.#addRaw(part);
        if (this.#state !== 'padding') this.#gathered.push(part);
      }
      if (this.#remaining === 0) this.#next();
    }
  }

  end(): void {
    const partial = this.#gathered.length > 0 || this.#state === 'content' || this.#state === 'meta';
    if (partial) throw unreadableTar('it ends inside an entry');
    if (this.#rawBytes > 0) this.#handler.trailer(this.#takeRaw());
  }

  #next(): void {
    if (this.#state === 'content') {
      this.#await('padding', this.#paddingBytes);
    } else if (this.#state === 'padding') {
      this.#await('header', TAR_BLOCK_BYTES);
    } else {
      const gathered = this.#gathered.length === 1 ? this.#gathered[0]! : Buffer.concat(this.#gathered);
      this.#gathered = [];
      if (this.#state === 'meta') this.#meta(gathered);
      else this.#header(gathered);
    }
  }

  #await(state: 'header' | 'meta' | 'content' | 'padding' | 'second-end', bytes: number): void {
    this.#state = state;
    this.#remaining = bytes;
    if (bytes === 0) this.#next();
  }

  #header(block: Buffer): void {
    if (isZeroBlock(block)) {
      this.#zeroBlock();
      return;
    }
    if (this.#state === 'second-end') throw unreadableTar('a block of zeros stands between its entries');
    const entry = parseHeader(block);
    if (entry.type === 'x' || entry.type === 'L' || entry.type === 'K') {
      if (entry.sizeBytes > MAX_TAR_META_BYTES)
        throw unreadableTar('an extended header is larger than 1 MiB');
      this.#metaType = entry.type;
      this.#metaBytes = entry.sizeBytes;
      this.#await('meta', entry.sizeBytes + paddingOf(entry.sizeBytes));
      return;
    }
    this.#entry(entry);
  }

  #zeroBlock(): void {
    if (this.#state === 'header') {
      this.#await('second-end', TAR_BLOCK_BYTES);
      return;
    }
    this.#handler.trailer(this.#takeRaw());
    this.#state = 'trailer';
  }

  #meta(body: Buffer): void {
    this.#extended.take(this.#metaType, body.subarray(0, this.#metaBytes));
    this.#await('header', TAR_BLOCK_BYTES);
  }

  #entry(entry: TarEntry): void {
    this.#extended.complete(entry);
    const contentBytes = isHeaderOnly(entry.type) ? 0 : entry.sizeBytes;
    this.#paddingBytes = paddingOf(contentBytes);
    this.#handler.entry(entry, contentBytes, this.#takeRaw());
    this.#await('content', contentBytes);
  }

  #trailer(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + TRAILER_BYTES - this.#rawBytes);
      at += part.length;
      this.#addRaw(part);
      if (this.#rawBytes === TRAILER_BYTES) this.#handler.trailer(this.#takeRaw());
    }
  }

  #addRaw(part: Buffer): void {
    this.#raw.push(part);
    this.#rawBytes += part.length;
  }

  #takeRaw(): Buffer {
    const raw = Buffer.concat(this.#raw, this.#rawBytes);
    this.#raw = [];
    this.#rawBytes = 0;
    return raw;
  }
}

import { isHeaderOnly, unreadableTar } from '../format/tar-fields.js';
import { ExtendedHeaders, parseHeader, type TarEntry } from '../format/tar-header.js';
import { TarParser } from '../format/tar-walker.js';

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
 * Parses a tar in pieces of any size. `push` and `end` throw PullError `metadata-malformed` for a
 * malformed tar and `unsupported` for sparse formats.
 */
export class TarReader extends TarParser {
  readonly #handler: TarHandler;
  #raw: Buffer[] = [];
  #rawBytes = 0;
  readonly #extended = new ExtendedHeaders();

  constructor(handler: TarHandler) {
    super();
    this.#handler = handler;
  }

  push(bytes: Buffer): void {
    const wasEnded = this.ended;
    const parsedBytes = this.parse(bytes);
    if (this.ended && !wasEnded) this.#handler.trailer(this.#takeRaw());
    this.#trailer(bytes.subarray(parsedBytes));
  }

  end(): void {
    if (this.isInsideEntry) throw unreadableTar('it ends inside an entry');
    if (this.#rawBytes > 0) this.#handler.trailer(this.#takeRaw());
  }

  protected onMeta(type: string, body: Buffer): void {
    this.#extended.add(type, body);
  }

  protected onEntry(block: Buffer): number {
    const entry = parseHeader(block);
    this.#extended.complete(entry);
    const contentBytes = isHeaderOnly(entry.type) ? 0 : entry.sizeBytes;
    this.#handler.entry(entry, contentBytes, this.#takeRaw());
    return contentBytes;
  }

  protected onContent(part: Buffer): void {
    this.#handler.content(part);
  }

  protected override onOther(part: Buffer): void {
    this.#raw.push(part);
    this.#rawBytes += part.length;
  }

  #trailer(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + TRAILER_BYTES - this.#rawBytes);
      at += part.length;
      this.onOther(part);
      if (this.#rawBytes === TRAILER_BYTES) this.#handler.trailer(this.#takeRaw());
    }
  }

  #takeRaw(): Buffer {
    const raw = Buffer.concat(this.#raw, this.#rawBytes);
    this.#raw = [];
    this.#rawBytes = 0;
    return raw;
  }
}

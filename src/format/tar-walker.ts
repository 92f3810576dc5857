import {
  integerOf,
  isGnuHeader,
  isHeaderOnly,
  isZeroBlock,
  MAX_TAR_META_BYTES,
  paddingOf,
  parsePax,
  SPARSE_EXTENSION_FLAG_AT,
  SPARSE_HEADER_FLAG_AT,
  sizeFieldOf,
  sizeOf,
  TAR_BLOCK_BYTES,
  textOf,
  unreadableTar,
  verifyHeader,
} from './tar-fields.js';

type State = 'header' | 'meta' | 'map' | 'content' | 'padding' | 'ended';

/**
 * Splits a tar into headers, extended headers and contents as its bytes arrive (ustar, V7, GNU,
 * pax). Bytes passed to its methods are valid until they return.
 */
export abstract class TarParser {
  #state: State;
  /** Bytes remaining in this state. */
  #leftBytes: number;
  /** Padding behind the content. */
  #paddingBytes = 0;
  /** Parts of a block or an extended header that must be complete to be read. */
  #gathered: Buffer[] = [];
  #metaType = '';
  #metaBytes = 0;
  /** Length of a content whose sparse map comes first. */
  #contentBytes = 0;
  /** Whether the last block was zeros: another one ends the archive. */
  #zeros = false;

  /** `start`: where the first byte lies; at a header by default. */
  constructor(
    start: { paddingBytes: number } | { sizeBytes: number; leftBytes: number } = { paddingBytes: 0 },
  ) {
    if ('paddingBytes' in start) {
      this.#state = 'padding';
      this.#leftBytes = start.paddingBytes;
    } else {
      this.#state = 'content';
      this.#leftBytes = start.leftBytes;
      this.#paddingBytes = paddingOf(start.sizeBytes);
    }
  }

  /** Both blocks that end an archive have arrived; what follows them is ignored. */
  get ended(): boolean {
    return this.#state === 'ended';
  }

  /** Whether a header or a content has begun and is not complete. */
  protected get isInsideEntry(): boolean {
    return this.#gathered.length > 0 || ['meta', 'map', 'content'].includes(this.#state);
  }

  /** Receives an extended header of type `x`, `L` or `K`. */
  protected abstract onMeta(type: string, body: Buffer): void;
  /** Receives the header of an entry. Returns the length of the content behind it. */
  protected abstract onEntry(block: Buffer, type: string, statedBytes: number): number;
  /** Receives the next bytes of the content of the last entry. */
  protected abstract onContent(part: Buffer, isLast: boolean): void;
  /** Receives bytes that are no content, before they are parsed. */
  protected onOther(_part: Buffer): void {}

  /**
   * Parses the next bytes. Returns how many of them are before the end of the archive.
   * @throws PullError `metadata-malformed` if an entry should begin without a header, or states
   *   impossible values
   */
  protected parse(bytes: Buffer): number {
    let at = 0;
    while (!this.ended) {
      if (this.#leftBytes === 0) {
        this.#advance();
        continue;
      }
      if (at === bytes.length) break;
      const part = bytes.subarray(at, at + this.#leftBytes);
      at += part.length;
      this.#leftBytes -= part.length;
      if (this.#state === 'content') this.onContent(part, this.#leftBytes === 0);
      else {
        this.onOther(part);
        if (this.#state !== 'padding') this.#gather(part);
      }
    }
    return at;
  }

  /** Continues after a state that has all its bytes and did not need them in one piece. */
  #advance(): void {
    if (this.#state === 'content') this.#await('padding', this.#paddingBytes);
    else if (this.#state === 'meta') this.#gather(NO_BYTES);
    else this.#await('header', TAR_BLOCK_BYTES);
  }

  #await(state: State, bytes: number): void {
    this.#state = state;
    this.#leftBytes = bytes;
  }

  /**
   * Headers inside one call are read in place; parts are copied, since the caller reuses its
   * memory.
   */
  #gather(part: Buffer): void {
    if (this.#leftBytes > 0) {
      this.#gathered.push(Buffer.from(part));
      return;
    }
    const block = this.#gathered.length === 0 ? part : Buffer.concat([...this.#gathered, part]);
    this.#gathered = [];
    if (this.#state === 'meta') {
      this.onMeta(this.#metaType, block.subarray(0, this.#metaBytes));
      this.#await('header', TAR_BLOCK_BYTES);
    } else if (this.#state === 'header') this.#header(block);
    else this.#awaitContent(block[SPARSE_EXTENSION_FLAG_AT] !== 0);
  }

  #header(block: Buffer): void {
    if (isZeroBlock(block)) {
      this.#await(this.#zeros ? 'ended' : 'header', TAR_BLOCK_BYTES);
      this.#zeros = true;
      return;
    }
    if (this.#zeros) throw unreadableTar('a block of zeros stands between its entries');
    verifyHeader(block);
    const type = String.fromCharCode(block[156]!);
    const sizeBytes = sizeFieldOf(block);
    if (type === 'x' || type === 'L' || type === 'K') {
      if (sizeBytes > MAX_TAR_META_BYTES) throw unreadableTar('an extended header is larger than 1 MiB');
      this.#metaType = type;
      this.#metaBytes = sizeBytes;
      this.#await('meta', sizeBytes + paddingOf(sizeBytes));
      return;
    }
    this.#contentBytes = this.onEntry(block, type, sizeBytes);
    this.#paddingBytes = paddingOf(this.#contentBytes);
    this.#awaitContent(type === 'S' && isGnuHeader(block) && block[SPARSE_HEADER_FLAG_AT] !== 0);
  }

  /** The blocks that extend a sparse header lie before its content and do not count as content. */
  #awaitContent(hasMap: boolean): void {
    if (hasMap) this.#await('map', TAR_BLOCK_BYTES);
    else this.#await('content', this.#contentBytes);
  }
}

/**
 * Receives the contents of regular files, one after the other: begin, data in parts, end. A part is
 * valid until the call returns. Empty files are left out.
 */
export interface TarSink {
  begin(sizeBytes: number): void;
  data(part: Buffer): void;
  end(): void;
}

const SLASH = 0x2f;
const NO_BYTES = Buffer.alloc(0);

/**
 * Finds the contents in a tar. Reads only the length of each entry and whether it is a regular
 * file. Global pax headers are skipped, as by Go's reader.
 */
export class TarWalker extends TarParser {
  #sink: TarSink | undefined;
  /** Whether the current content is that of a file. */
  #isFile = true;
  /** From an extended header of the next entry: its size, and whether its name ends in a slash. */
  #extendedSize: number | undefined;
  #extendedSlash: boolean | undefined;

  /** Reads the next bytes and passes the contents in them to the sink. @throws as `parse` */
  walk(bytes: Buffer, sink: TarSink): void {
    this.#sink = sink;
    this.parse(bytes);
  }

  protected onContent(part: Buffer, isLast: boolean): void {
    if (!this.#isFile) return;
    this.#sink!.data(part);
    if (isLast) this.#sink!.end();
  }

  /** An empty value is ignored, and a GNU long name takes precedence over a path. */
  protected onMeta(type: string, body: Buffer): void {
    if (type === 'L') this.#extendedSlash = textOf(body).at(-1) === SLASH;
    if (type !== 'x') return;
    const records = parsePax(body);
    const size = records.get('size') ?? '';
    const path = records.get('path') ?? '';
    this.#extendedSize = size === '' ? undefined : sizeOf(integerOf(size));
    if (path !== '') this.#extendedSlash ??= path.endsWith('/');
  }

  protected onEntry(block: Buffer, type: string, statedBytes: number): number {
    // Archives from before POSIX have no type for files, and mark directories by a slash.
    const isOldDirectory = type === '\0' && (this.#extendedSlash ?? endsInSlash(block));
    const sizeBytes = isOldDirectory || isHeaderOnly(type) ? 0 : (this.#extendedSize ?? statedBytes);
    this.#extendedSize = undefined;
    this.#extendedSlash = undefined;
    this.#isFile = !isOldDirectory && (type === '0' || type === '\0' || type === '7');
    if (this.#isFile && sizeBytes > 0) this.#sink!.begin(sizeBytes);
    return sizeBytes;
  }
}

function endsInSlash(block: Buffer): boolean {
  return textOf(block.subarray(0, 100)).at(-1) === SLASH;
}

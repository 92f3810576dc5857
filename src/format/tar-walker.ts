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

/**
 * Finds the contents in a tar as its bytes arrive (ustar, V7, GNU, pax). Reads only the length of
 * each entry and whether it is a regular file. Global pax headers are skipped, as by Go's reader.
 */
export class TarWalker {
  #state: 'header' | 'meta' | 'sparse' | 'content' | 'skipped' | 'padding' | 'ended';
  /** Bytes remaining in this state. */
  #left: number;
  /** Padding behind the content, or behind what is skipped. */
  #paddingBytes = 0;
  /** Parts of a block or an extended header that must be complete to be read. */
  #gathered: Buffer[] = [];
  #metaType = '';
  #metaBytes = 0;
  /** From an extended header of the next entry: its size, and whether its name ends in a slash. */
  #extendedSize: number | undefined;
  #extendedSlash: boolean | undefined;
  /** Whether the last block was zeros: another one ends the archive. */
  #zeros = false;

  /** `start`: where the first byte lies; at a header by default. */
  constructor(
    start: { paddingBytes: number } | { sizeBytes: number; leftBytes: number } = { paddingBytes: 0 },
  ) {
    if ('paddingBytes' in start) {
      this.#state = 'padding';
      this.#left = start.paddingBytes;
    } else {
      this.#state = 'content';
      this.#left = start.leftBytes;
      this.#paddingBytes = paddingOf(start.sizeBytes);
    }
  }

  /** Both blocks that end an archive have arrived; what follows them is ignored. */
  get ended(): boolean {
    return this.#state === 'ended';
  }

  /**
   * Reads the next bytes and passes the contents in them to the sink.
   * @throws PullError `metadata-malformed` if an entry should begin without a header, or states
   *   impossible values
   */
  walk(bytes: Buffer, sink: TarSink): void {
    let at = 0;
    while (!this.ended) {
      if (this.#left === 0) {
        this.#advance(sink);
        continue;
      }
      if (at === bytes.length) return;
      const part = bytes.subarray(at, at + this.#left);
      at += part.length;
      this.#left -= part.length;
      if (this.#state === 'content') sink.data(part);
      else if (this.#state !== 'skipped' && this.#state !== 'padding') this.#gather(part, sink);
      if (this.#left === 0 && this.#state === 'content') sink.end();
    }
  }

  /** Continues after a state that has all its bytes and did not need them in one piece. */
  #advance(sink: TarSink): void {
    switch (this.#state) {
      case 'content':
      case 'skipped':
        this.#await('padding', this.#paddingBytes);
        return;
      case 'meta':
        this.#gather(Buffer.alloc(0), sink);
        return;
      default:
        this.#await('header', TAR_BLOCK_BYTES);
    }
  }

  #await(state: 'header' | 'meta' | 'sparse' | 'content' | 'skipped' | 'padding', bytes: number): void {
    this.#state = state;
    this.#left = bytes;
  }

  /**
   * Headers inside one call are read in place; parts are copied, since the caller reuses its
   * memory.
   */
  #gather(part: Buffer, sink: TarSink): void {
    if (this.#left > 0) {
      this.#gathered.push(Buffer.from(part));
      return;
    }
    const block = this.#gathered.length === 0 ? part : Buffer.concat([...this.#gathered, part]);
    this.#gathered = [];
    if (this.#state === 'meta') this.#meta(block.subarray(0, this.#metaBytes));
    else if (this.#state === 'sparse') this.#sparse(block[SPARSE_EXTENSION_FLAG_AT] !== 0);
    else this.#header(block, sink);
  }

  #header(block: Buffer, sink: TarSink): void {
    if (isZeroBlock(block)) {
      if (this.#zeros) this.#state = 'ended';
      else this.#await('header', TAR_BLOCK_BYTES);
      this.#zeros = true;
      return;
    }
    if (this.#zeros) throw unreadableTar('a block of zeros stands between its entries');
    verifyHeader(block);
    const type = String.fromCharCode(block[156]!);
    const sizeBytes = sizeFieldOf(block);
    if (type === 'x' || type === 'L' || type === 'K') this.#beginMeta(type, sizeBytes);
    else this.#entry(block, type, sizeBytes, sink);
  }

  #beginMeta(type: string, sizeBytes: number): void {
    if (sizeBytes > MAX_TAR_META_BYTES) throw unreadableTar('an extended header is larger than 1 MiB');
    this.#metaType = type;
    this.#metaBytes = sizeBytes;
    this.#await('meta', sizeBytes + paddingOf(sizeBytes));
  }

  #meta(body: Buffer): void {
    if (this.#metaType === 'L') this.#extendedSlash = textOf(body).at(-1) === SLASH;
    if (this.#metaType === 'x') this.#pax(parsePax(body));
    this.#await('header', TAR_BLOCK_BYTES);
  }

  /** An empty value is ignored, and a GNU long name takes precedence over a path. */
  #pax(records: ReadonlyMap<string, string>): void {
    const size = records.get('size') ?? '';
    const path = records.get('path') ?? '';
    this.#extendedSize = size === '' ? undefined : sizeOf(integerOf(size));
    if (path !== '') this.#extendedSlash ??= path.endsWith('/');
  }

  #entry(block: Buffer, type: string, statedBytes: number, sink: TarSink): void {
    const stored = this.#extendedSize ?? statedBytes;
    // Archives from before POSIX have no type for files, and mark directories by a slash.
    const isOldDirectory = type === '\0' && (this.#extendedSlash ?? endsInSlash(block));
    this.#extendedSize = undefined;
    this.#extendedSlash = undefined;
    const sizeBytes = isOldDirectory || isHeaderOnly(type) ? 0 : stored;
    this.#paddingBytes = paddingOf(sizeBytes);
    const isFile = !isOldDirectory && (type === '0' || type === '\0' || type === '7');
    if (isFile && sizeBytes > 0) sink.begin(sizeBytes);
    this.#await(isFile && sizeBytes > 0 ? 'content' : 'skipped', sizeBytes);
    if (type === 'S' && isGnuHeader(block) && block[SPARSE_HEADER_FLAG_AT] !== 0)
      this.#beginSparse(sizeBytes);
  }

  /** The blocks that extend a sparse header lie before its content and do not count as content. */
  #beginSparse(sizeBytes: number): void {
    this.#metaBytes = sizeBytes;
    this.#await('sparse', TAR_BLOCK_BYTES);
  }

  #sparse(another: boolean): void {
    if (another) this.#await('sparse', TAR_BLOCK_BYTES);
    else this.#await('skipped', this.#metaBytes);
  }
}

function endsInSlash(block: Buffer): boolean {
  return textOf(block.subarray(0, 100)).at(-1) === SLASH;
}

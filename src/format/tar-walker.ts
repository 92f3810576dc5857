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
 * Where the contents of regular files go, one after the other: begin, data in parts, end. A part is good until the call
 * returns. Empty files are not told of.
 */
export interface TarSink {
  begin(sizeBytes: number): void;
  data(part: Buffer): void;
  end(): void;
}

const SLASH = 0x2f;

/**
 * Finds the contents of a tar in its bytes as they come (ustar, V7, GNU, pax), and understands no more of an entry than
 * how long it is and whether it is a regular file. Global pax headers are passed over, as Go's reader does it.
 */
export class TarWalker {
  #state: 'header' | 'meta' | 'sparse' | 'content' | 'passed' | 'padding' | 'ended';
  /** Bytes of this state still to come. */
  #left: number;
  /** What follows a content or what is passed over with it. */
  #paddingBytes = 0;
  /** What came of a block or an extended header that must be whole. */
  #gathered: Buffer[] = [];
  #metaType = '';
  #metaBytes = 0;
  /** What an extended header says of the next entry: its size, and how its name ends. */
  #extendedSize: number | undefined;
  #extendedSlash: boolean | undefined;
  /** The last block was zeros: another one ends the archive. */
  #zeros = false;

  /** `start`: where the first byte stands; at a header when left out. */
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

  /** Both blocks that end an archive have come: what follows them means nothing. */
  get ended(): boolean {
    return this.#state === 'ended';
  }

  /**
   * Takes the next bytes, and tells the sink of the contents in them.
   * @throws PullError `metadata-malformed` when an entry should begin and no header is there, or it says what cannot be
   */
  walk(bytes: Buffer, sink: TarSink): void {
    let at = 0;
    while (!this.ended) {
      if (this.#left === 0) {
        this.#turn(sink);
        continue;
      }
      if (at === bytes.length) return;
      const part = bytes.subarray(at, at + this.#left);
      at += part.length;
      this.#left -= part.length;
      if (this.#state === 'content') sink.data(part);
      else if (this.#state !== 'passed' && this.#state !== 'padding') this.#gather(part, sink);
      if (this.#left === 0 && this.#state === 'content') sink.end();
    }
  }

  /** What follows a state that has all its bytes and needed none of them whole. */
  #turn(sink: TarSink): void {
    switch (this.#state) {
      case 'content':
      case 'passed':
        this.#await('padding', this.#paddingBytes);
        return;
      case 'meta':
        this.#gather(Buffer.alloc(0), sink);
        return;
      default:
        this.#await('header', TAR_BLOCK_BYTES);
    }
  }

  #await(state: 'header' | 'meta' | 'sparse' | 'content' | 'passed' | 'padding', bytes: number): void {
    this.#state = state;
    this.#left = bytes;
  }

  /** Headers within one call are looked at where they are; what comes in parts is copied, as the caller's memory changes. */
  #gather(part: Buffer, sink: TarSink): void {
    if (this.#left > 0) {
      this.#gathered.push(Buffer.from(part));
      return;
    }
    const whole = this.#gathered.length === 0 ? part : Buffer.concat([...this.#gathered, part]);
    this.#gathered = [];
    if (this.#state === 'meta') this.#meta(whole.subarray(0, this.#metaBytes));
    else if (this.#state === 'sparse') this.#sparse(whole[SPARSE_EXTENSION_FLAG_AT] !== 0);
    else this.#header(whole, sink);
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

  /** An empty value means nothing, and a GNU long name goes before a path. */
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
    this.#await(isFile && sizeBytes > 0 ? 'content' : 'passed', sizeBytes);
    if (type === 'S' && isGnuHeader(block) && block[SPARSE_HEADER_FLAG_AT] !== 0)
      this.#beginSparse(sizeBytes);
  }

  /** The blocks that extend a sparse header stand before its content and do not count as such. */
  #beginSparse(sizeBytes: number): void {
    this.#metaBytes = sizeBytes;
    this.#await('sparse', TAR_BLOCK_BYTES);
  }

  #sparse(another: boolean): void {
    if (another) this.#await('sparse', TAR_BLOCK_BYTES);
    else this.#await('passed', this.#metaBytes);
  }
}

function endsInSlash(block: Buffer): boolean {
  return textOf(block.subarray(0, 100)).at(-1) === SLASH;
}

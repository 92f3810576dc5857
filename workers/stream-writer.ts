import { createHash, type Hash, hash } from 'node:crypto';
import { PullError } from '../src/format/error.js';
import { type TarSink, TarWalker } from '../src/format/tar-walker.js';
import { count } from '../src/pool/counters.js';
import type { ExtentRows } from '../src/pool/messages.js';
import { ExtentList } from '../src/store/extents.js';
import { PackWriter, type Region } from '../src/store/pack-writer.js';
import type { PackId } from '../src/store/paths.js';
import { paths, setup } from './context.js';
import { noteGarbage } from './garbage.js';
import { ProvenRows } from './proven-rows.js';

/** Bytes that are told of at a time: the hash behind them need not wait long, and messages are few. */
const TOLD_BYTES = 4 * 2 ** 20;

const ZEROS = Buffer.alloc(2 ** 20);

/**
 * Writes the tar of one layer, as it is decoded, to a pack of its own in one run, notes the contents of regular files
 * in its index, and tells of what is written.
 */
export class StreamWriter {
  readonly #tell: (rows: ExtentRows) => void;
  readonly #writer = new PackWriter(paths);
  /** None once the bytes turned out to be no tar that we know: they are proven by their DiffID all the same. */
  #walker: TarWalker | undefined = new TarWalker();
  readonly #contents = new ContentHasher();
  #region: Region | undefined;
  #tarBytes = 0;
  #toldBytes = 0;

  constructor(tell: (rows: ExtentRows) => void) {
    this.#tell = tell;
  }

  get pack(): PackId | null {
    return this.#region?.pack ?? null;
  }

  get tarBytes(): number {
    return this.#tarBytes;
  }

  /** The next bytes, at most 1 MiB. @throws PullError as PackWriter */
  readonly take = (bytes: Buffer): void => {
    // Nobody else writes to this pack: the region is all of it.
    this.#region ??= this.#writer.reserve(Number.MAX_SAFE_INTEGER);
    const region = this.#region;
    const tarStart = this.#tarBytes;
    this.#write(region, bytes);
    this.#tarBytes += bytes.length;
    count(setup.counters, 'written', bytes.length);
    this.#contents.enter(bytes, tarStart);
    this.#walk(bytes);
    this.#writer.noteContents(region, this.#contents.leave());
    if (this.#tarBytes - this.#toldBytes >= TOLD_BYTES) this.tellRest();
    noteGarbage(bytes.length);
  };

  /** Tells of what it has not told of yet. */
  tellRest(): void {
    if (this.#region === undefined || this.#tarBytes === this.#toldBytes) return;
    const extents = new ExtentList();
    extents.push(this.#region.pack, this.#toldBytes, this.#tarBytes - this.#toldBytes);
    this.#tell(extents.toRows());
    this.#toldBytes = this.#tarBytes;
  }

  /** Ends the pack. @throws PullError as PackWriter */
  close(): void {
    this.#writer.close();
  }

  /** A block of zeros becomes a hole: its last byte makes the pack long enough. */
  #write(region: Region, bytes: Buffer): void {
    const last = bytes.length - 1;
    const isHole = bytes[0] === 0 && bytes[last] === 0 && bytes.equals(ZEROS.subarray(0, bytes.length));
    if (isHole) this.#writer.writePlain(region, bytes.subarray(last), this.#tarBytes + last);
    else this.#writer.writePlain(region, bytes, this.#tarBytes);
  }

  #walk(bytes: Buffer): void {
    try {
      this.#walker?.walk(bytes, this.#contents);
    } catch (error) {
      if (!(error instanceof PullError) || error.code !== 'metadata-malformed') throw error;
      this.#walker = undefined;
    }
  }
}

/** The digests of a tar's contents, block after block. */
class ContentHasher implements TarSink {
  #ended = new ProvenRows();
  /** The block that is walked, and where it stands in the tar. */
  #block: Buffer = ZEROS;
  #blockAt = 0;
  /** The content that is walked. */
  #sizeBytes = 0;
  #tarStart = -1;
  #running: Hash | undefined;
  #digest: Buffer | undefined;

  enter(block: Buffer, tarStart: number): void {
    this.#block = block;
    this.#blockAt = tarStart;
  }

  /** The contents that ended in the block. */
  leave(): ReturnType<ProvenRows['rows']> {
    const rows = this.#ended.rows();
    if (rows.count > 0) this.#ended = new ProvenRows();
    return rows;
  }

  begin(sizeBytes: number): void {
    this.#sizeBytes = sizeBytes;
    this.#tarStart = -1;
  }

  data(part: Buffer): void {
    if (this.#tarStart < 0) this.#tarStart = this.#blockAt + (part.byteOffset - this.#block.byteOffset);
    if (part.length === this.#sizeBytes) {
      this.#digest = hash('sha256', part, 'buffer');
      return;
    }
    this.#running ??= createHash('sha256');
    this.#running.update(part);
  }

  end(): void {
    const digest = this.#running?.digest() ?? this.#digest!;
    this.#running = undefined;
    this.#ended.add(digest, this.#tarStart, this.#sizeBytes);
  }
}

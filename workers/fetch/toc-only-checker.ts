import { createHash, type Hash } from 'node:crypto';
import { lastAtMost } from '../../src/format/arrays.js';
import { DIGEST_BYTES, type Digest, digestAt, digestOfBytes } from '../../src/format/digest.js';
import { cutPoints, type LayerTable, SPAN_TAR_BYTES } from '../../src/format/layer-table.js';
import { paddingOf } from '../../src/format/tar-fields.js';
import { type TarSink, TarWalker } from '../../src/format/tar-walker.js';
import type { ContentLocation, FetchSpanTask, WrongBytes } from '../../src/pool/messages.js';
import { type CheckedPiece, ContentList, RunningHash, type SpanChecker } from './content-checker.js';

type Problem = Pick<WrongBytes, 'problem' | 'expected' | 'actual'>;

/**
 * Checks the contents of a span of a layer without tar-split: finds them by walking the tar, and
 * compares each with the next row of the table. Contents are proven by digest, those with chunk
 * rows chunk by chunk; headers only by the DiffID.
 */
export class TocOnlyChecker implements SpanChecker, TarSink {
  readonly locations: ContentLocation[] | undefined;
  readonly #task: FetchSpanTask;
  readonly #walker: TarWalker;
  /** The content being read, or the next one; `#done` of its bytes have been read. */
  #row: number;
  #done = 0;
  /** Its chunk, or -1 if it has no chunk rows. */
  #chunk = -1;
  readonly #hash = new RunningHash();
  /** Bytes hashed of the piece that is checked. */
  #hashedBytes = 0;
  /** The pack offset of the unit (content or chunk) being read. */
  #unitStart = -1;
  /**
   * Hashes a content with chunk rows that begins in this span and is small enough to be looked up
   * by its digest.
   */
  #content: { readonly hash: Hash; packStart: number } | undefined;
  /** The proven units of the piece being checked, and the first error. */
  #proven = new ContentList();
  #problem: Problem | undefined;
  #piece: Buffer = Buffer.alloc(0);
  #packOffset = 0;

  constructor(task: FetchSpanTask) {
    this.#task = task;
    this.locations = task.reportLocations ? [] : undefined;
    const { table, blobStart, blobEnd } = task;
    const edges = cutPoints(table, blobStart, blobEnd);
    const row = edges.row[0] ?? -1;
    this.#row = row;
    if (row < 0) {
      // A gap: behind the last content that ends here, or at the beginning of the tar.
      const before = blobStart === 0 ? -1 : lastAtMost(table.blobEnd, table.count, blobStart);
      this.#row = before + 1;
      this.#walker =
        before < 0 ? new TarWalker() : new TarWalker({ paddingBytes: paddingOf(table.sizeBytes[before]!) });
      return;
    }
    const chunk = edges.chunk[0]!;
    this.#enter(chunk >= 0 ? chunk : firstChunk(table, row), chunk < 0);
    this.#done = chunk >= 0 ? table.chunkTarStart[chunk]! - table.tarStart[row]! : 0;
    const sizeBytes = table.sizeBytes[row]!;
    this.#walker = new TarWalker({ sizeBytes, leftBytes: sizeBytes - this.#done });
  }

  check(bytes: Buffer, _tarStart: number, packOffset: number): CheckedPiece {
    this.#piece = bytes;
    this.#packOffset = packOffset;
    this.#proven = new ContentList();
    this.#hashedBytes = 0;
    this.#walker.walk(bytes, this);
    return this.#checked();
  }

  finish(blobEnd = this.#task.blobEnd): CheckedPiece['wrong'] {
    const { table } = this.#task;
    const edges = cutPoints(table, blobEnd, blobEnd);
    // A span can end at a chunk within a content.
    const chunk = edges.chunk[0] ?? -1;
    const row = chunk >= 0 ? edges.row[0]! : rowsBefore(table, blobEnd);
    const expected = chunk >= 0 ? table.chunkTarStart[chunk]! - table.tarStart[row]! : 0;
    if (this.#row !== row || this.#done !== expected) {
      this.#problem ??= {
        problem: `the frames up to byte ${blobEnd} of the blob end before their contents do`,
      };
    }
    return this.#checked().wrong;
  }

  begin(sizeBytes: number): void {
    const { table } = this.#task;
    const expected = this.#row < table.count ? table.sizeBytes[this.#row] : undefined;
    if (sizeBytes !== expected) {
      const stated = expected === undefined ? 'no further file' : `one of ${expected}`;
      this.#problem ??= { problem: `the tar has a file of ${sizeBytes} bytes where the TOC has ${stated}` };
      return;
    }
    this.#done = 0;
    this.#enter(firstChunk(table, this.#row), true);
  }

  /**
   * Goes to a chunk of the content, or with -1 to the content; `first`: its first bytes come next.
   */
  #enter(chunk: number, first: boolean): void {
    this.#chunk = chunk;
    const isLookedUp = this.#task.table.sizeBytes[this.#row]! <= SPAN_TAR_BYTES;
    this.#content =
      chunk >= 0 && first && isLookedUp ? { hash: createHash('sha256'), packStart: -1 } : undefined;
  }

  data(part: Buffer): void {
    for (let at = 0; at < part.length && this.#problem === undefined; ) {
      const { end, digests, digestRow } = this.#unit();
      const bytes = part.subarray(at, at + end - this.#done);
      if (this.#unitStart < 0) {
        this.#unitStart = this.#packOffset + (bytes.byteOffset - this.#piece.byteOffset);
        if (this.#content !== undefined && this.#done === 0) this.#content.packStart = this.#unitStart;
      }
      this.#content?.hash.update(bytes);
      this.#hashedBytes += this.#content === undefined ? bytes.length : 2 * bytes.length;
      const digest = this.#hash.add(bytes, this.#done + bytes.length === end);
      this.#done += bytes.length;
      at += bytes.length;
      if (digest === undefined) continue;
      const stated = digests.subarray(digestRow * DIGEST_BYTES, (digestRow + 1) * DIGEST_BYTES);
      if (digest.equals(stated)) this.#prove(stated, end);
      else this.#differs(digestAt(digests, digestRow), digestOfBytes(digest));
    }
  }

  end(): void {
    if (this.#problem === undefined && this.#content !== undefined) this.#proveContent(this.#content);
    this.#content = undefined;
    this.#row += 1;
    this.#done = 0;
  }

  /** Checks the digest of a content whose chunks were right. */
  #proveContent({ hash, packStart }: { readonly hash: Hash; readonly packStart: number }): void {
    const { digests, sizeBytes } = this.#task.table;
    const stated = digests.subarray(this.#row * DIGEST_BYTES, (this.#row + 1) * DIGEST_BYTES);
    const actual = hash.digest();
    if (actual.equals(stated)) this.#proven.add(stated, packStart, sizeBytes[this.#row]!);
    else this.#differs(digestAt(digests, this.#row), digestOfBytes(actual));
  }

  /** The unit being read: its range in the content, and its digest. */
  #unit(): { start: number; end: number; digests: Uint8Array; digestRow: number } {
    const { table } = this.#task;
    const row = this.#row;
    const size = table.sizeBytes[row]!;
    if (this.#chunk < 0) return { start: 0, end: size, digests: table.digests, digestRow: row };
    const start = table.chunkTarStart[this.#chunk]! - table.tarStart[row]!;
    const isLast = this.#chunk + 1 === table.chunkFirst[row + 1];
    const end = isLast ? size : table.chunkTarStart[this.#chunk + 1]! - table.tarStart[row]!;
    return { start, end, digests: table.chunkDigests, digestRow: this.#chunk };
  }

  #prove(digest: Uint8Array, end: number): void {
    const { start } = this.#unit();
    const lengthBytes = end - start;
    this.#proven.add(digest, this.#unitStart, lengthBytes);
    this.locations?.push({ row: this.#row, start, lengthBytes, packOffset: this.#unitStart });
    this.#unitStart = -1;
    if (this.#chunk >= 0 && end < this.#task.table.sizeBytes[this.#row]!) this.#chunk += 1;
  }

  #differs(expected: Digest, actual: Digest): void {
    const problem = `content ${this.#row} has the digest ${actual}, not ${expected}`;
    this.#problem ??= { problem, expected, actual };
  }

  /** An error makes the full span wrong: the blob offset of its bytes is unknown. */
  #checked(): CheckedPiece {
    const contents = this.#proven.rows();
    const hashedBytes = this.#hashedBytes;
    if (this.#problem === undefined) return { contents, hashedBytes };
    const { blobStart, tarStart } = this.#task;
    return { contents, hashedBytes, wrong: { ...this.#problem, content: this.#row, blobStart, tarStart } };
  }
}

function firstChunk({ chunkFirst }: LayerTable, row: number): number {
  return chunkFirst[row]! < chunkFirst[row + 1]! ? chunkFirst[row]! : -1;
}

/** Returns how many contents begin before this blob offset. */
function rowsBefore(table: LayerTable, blobAt: number): number {
  return lastAtMost(table.blobStart, table.count, blobAt - 1) + 1;
}

import type { TarEntry } from '../format/tar-header.js';
import {
  type ChunkedDialect,
  CURRENT_DIALECT,
  compressText,
  TarSplitText,
  tocText,
  tocType,
  writeTail,
} from './chunked-metadata.js';
import { ContentFrames, FRAME_RAW_BYTES } from './content-frames.js';
import { FrameQueue, TarMeter, TextSpool, type WrittenLayer } from './layer-writer.js';
import { type TarHandler, TarReader } from './tar-reader.js';

/**
 * Writes a tar as zstd:chunked, as containers/storage does: a frame for the headers between two
 * contents and one for each chunk, then TOC, tar-split (if the dialect has one) and footer in
 * skippable frames. The tar stays identical. Memory is bounded by pending frames and the text of
 * TOC and tar-split. The pieces of the tar must not change afterwards.
 * @throws PullError `metadata-malformed` or `unsupported` for a tar that the reference writer
 *   refuses too
 */
export async function writeChunkedLayer(
  tar: Iterable<Buffer>,
  write: (bytes: Buffer) => void,
  onProgress: (doneBytes: number) => void,
  dialect = CURRENT_DIALECT,
): Promise<WrittenLayer> {
  const queue = new FrameQueue(write);
  const state = new LayerState(queue, dialect);
  const reader = new TarReader(state);
  const meter = new TarMeter();
  for (const piece of tar) {
    meter.add(piece);
    reader.push(piece);
    onProgress(piece.length);
    await queue.room();
  }
  reader.end();
  state.flushHeaders();
  await queue.drained();
  const annotations = await writeTables(state, queue.offsetBytes, write, dialect);
  return { diffId: meter.diffId(), tarBytes: meter.tarBytes, annotations };
}

/** Turns the events of the tar reader into frames and JSON lines. */
class LayerState implements TarHandler {
  readonly tarSplit: TarSplitText | undefined;
  readonly #queue: FrameQueue;
  readonly #zeroTimes: boolean;
  readonly #toc = new TextSpool();
  /** Whether the TOC has no entry yet. */
  #isEmpty = true;
  #headers: Buffer[] = [];
  #headerBytes = 0;
  #entry: TarEntry | undefined;
  #contentLeft = 0;
  #frames: ContentFrames | undefined;
  #crc = new Crc64();

  constructor(queue: FrameQueue, { tarSplitDigest, zeroTimes }: ChunkedDialect) {
    this.tarSplit = tarSplitDigest === undefined ? undefined : new TarSplitText();
    this.#queue = queue;
    this.#zeroTimes = zeroTimes;
  }

  entry(entry: TarEntry, contentBytes: number, raw: Buffer): void {
    tocType(entry);
    this.trailer(raw);
    if (contentBytes > 0) {
      this.flushHeaders();
      this.#entry = entry;
      this.#contentLeft = contentBytes;
      this.#frames = new ContentFrames(this.#queue, contentBytes);
      this.#crc = new Crc64();
      return;
    }
    // Like the reference writer, adds the checksum of no bytes if a header without content states a
    // size.
    this.tarSplit?.entry(entry, entry.sizeBytes > 0 ? new Crc64().digest() : undefined);
    this.#queue.after(() => this.#tocEntry(entry, undefined));
  }

  content(bytes: Buffer): void {
    const frames = this.#frames!;
    if (this.tarSplit !== undefined) this.#crc.update(bytes);
    frames.push(bytes);
    this.#contentLeft -= bytes.length;
    if (this.#contentLeft > 0) return;
    const entry = this.#entry!;
    this.tarSplit?.entry(entry, this.#crc.digest());
    this.#queue.after(() => this.#tocEntry(entry, frames));
  }

  trailer(raw: Buffer): void {
    this.tarSplit?.raw(raw);
    this.#headers.push(raw);
    this.#headerBytes += raw.length;
    if (this.#headerBytes >= FRAME_RAW_BYTES) this.flushHeaders();
  }

  flushHeaders(): void {
    if (this.#headerBytes === 0) return;
    this.#queue.add(Buffer.concat(this.#headers), () => {});
    this.#headers = [];
    this.#headerBytes = 0;
  }

  #tocEntry(entry: TarEntry, frames: ContentFrames | undefined): void {
    this.#toc.add(this.#isEmpty ? '{"version":1,"entries":[' : ',');
    this.#isEmpty = false;
    this.#toc.add(tocText(entry, frames?.toc, this.#zeroTimes));
  }

  /** Returns the complete TOC; `end` follows its entries. */
  endToc(end: string): Buffer {
    this.#toc.add(this.#isEmpty ? '{"version":1,"entries":null' : ']');
    this.#toc.add(end);
    return this.#toc.toBuffer();
  }
}

async function writeTables(
  state: LayerState,
  dataEnd: number,
  write: (bytes: Buffer) => void,
  { prefix, tarSplitDigest, magic }: ChunkedDialect,
): Promise<Record<string, string>> {
  const tarSplit = state.tarSplit && (await compressText(state.tarSplit.toBuffer()));
  const tocEnd =
    tarSplit !== undefined && tarSplitDigest === 'toc' ? `,"tarSplitDigest":"${tarSplit.digest}"}` : '}';
  const toc = await compressText(state.endToc(tocEnd));
  const [tocPosition, tarSplitPosition] = writeTail(write, dataEnd, magic, toc, tarSplit);
  const annotations = {
    [`${prefix}manifest-checksum`]: toc.digest,
    [`${prefix}manifest-position`]: tocPosition,
  };
  if (tarSplit === undefined) return annotations;
  annotations[`${prefix}tarsplit-position`] = tarSplitPosition;
  if (tarSplitDigest === 'annotation') annotations[`${prefix}tarsplit-checksum`] = tarSplit.digest;
  return annotations;
}

/**
 * CRC-64 with the ISO 3309 polynomial, which tar-split has for every file (Go's `hash/crc64`, table
 * ISO).
 *
 * The polynomial x^64 + x^4 + x^3 + x + 1 has so few terms that shifts alone process eight bytes at
 * a time; a sliced table would need eight look-ups in 16 KiB. Bits are reflected: bit 63 is x^0.
 */

const HIGH = 0xd8000000;

/** The contribution of the low four bits when they overflow x^64, for the terms x, x^3 and x^4. */
const CARRY = Uint32Array.from({ length: 16 }, (_, nibble) => carryOf(nibble));

function carryOf(nibble: number): number {
  let sum = 0;
  for (const shift of [1, 3, 4]) {
    let high = 0;
    for (let step = 0; step < shift; step += 1) {
      high = (high >>> 1) ^ ((nibble >>> step) & 1 ? HIGH : 0);
    }
    sum ^= high;
  }
  return sum;
}

/** A running checksum. */
export class Crc64 {
  #high = -1;
  #low = -1;

  /** Adds the next bytes. */
  update(bytes: Buffer): void {
    let high = this.#high;
    let low = this.#low;
    const whole = bytes.length - (bytes.length % 8);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0; at < whole; at += 8) {
      low ^= view.getInt32(at, true);
      high ^= view.getInt32(at + 4, true);
      const carry = CARRY[low & 15]!;
      low ^= ((low >>> 1) | (high << 31)) ^ ((low >>> 3) | (high << 29)) ^ ((low >>> 4) | (high << 28));
      high ^= (high >>> 1) ^ (high >>> 3) ^ (high >>> 4) ^ carry;
    }
    for (let at = whole; at < bytes.length; at += 1) {
      low ^= bytes[at]!;
      for (let bit = 0; bit < 8; bit += 1) {
        const out = low & 1;
        low = (low >>> 1) | (high << 31);
        high = (high >>> 1) ^ (out === 1 ? HIGH : 0);
      }
    }
    this.#high = high;
    this.#low = low;
  }

  /** Returns the checksum of all bytes so far: 8 bytes, big-endian. */
  digest(): Buffer {
    const bytes = Buffer.alloc(8);
    bytes.writeInt32BE(~this.#high, 0);
    bytes.writeInt32BE(~this.#low, 4);
    return bytes;
  }
}

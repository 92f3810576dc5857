import { createHash } from 'node:crypto';
import { compress } from '@mongodb-js/zstd';
import { type Digest, digestOfBytes } from '../format/digest.js';
import type { TarEntry } from '../format/tar-header.js';
import { ContentFrames, FRAME_RAW_BYTES } from './content-frames.js';
import { Crc64 } from './crc64.js';
import { FrameQueue } from './frame-queue.js';
import { TarReader } from './tar-reader.js';
import { TarSplitText } from './tar-split-text.js';
import { TextSpool } from './text-spool.js';
import { tocText, tocType } from './toc-text.js';

/** What has been written, and what the layer's descriptor must say about it. */
export interface ChunkedLayer {
  readonly diffId: Digest;
  readonly tarBytes: number;
  readonly entryCount: number;
  /** Files with content. */
  readonly contentCount: number;
  /** TOC entries of type `chunk`. */
  readonly chunkCount: number;
  readonly annotations: Readonly<Record<string, string>>;
}

const SKIPPABLE_MAGIC = 0x184d2a50;
const FOOTER_MAGIC = 'GNUlInUx';
const MANIFEST_TYPE = 1;
const PREFIX = 'io.github.containers.zstd-chunked.';

/**
 * Writes a tar as zstd:chunked, in the form of containers/storage 1.54 and later: a frame for the headers between
 * two contents, a frame a chunk, then the TOC, the tar-split and the footer in skippable frames. The tar stays as it
 * is to the bit. Memory is bounded by the frames under way and by the text of TOC and tar-split.
 * Pieces of the tar must not change after they were handed over.
 * @throws PullError `metadata-malformed` or `unsupported` for a tar the reference writer would refuse too
 */
export async function writeChunkedLayer(
  tar: Iterable<Buffer>,
  write: (bytes: Buffer) => void,
  onProgress: (doneBytes: number) => void,
): Promise<ChunkedLayer> {
  const queue = new FrameQueue(write);
  const state = new LayerState(queue);
  const reader = new TarReader(state);
  const tarHash = createHash('sha256');
  let tarBytes = 0;
  for (const piece of tar) {
    tarHash.update(piece);
    reader.push(piece);
    tarBytes += piece.length;
    onProgress(piece.length);
    await queue.room();
  }
  reader.end();
  state.flushHeaders();
  await queue.drained();
  const annotations = await writeTables(state, queue.offsetBytes, write);
  const { entryCount, contentCount, chunkCount } = state;
  const diffId = digestOfBytes(tarHash.digest());
  return { diffId, tarBytes, entryCount, contentCount, chunkCount, annotations };
}

/** Turns the events of the tar reader into frames and lines. */
class LayerState {
  readonly toc = new TextSpool();
  readonly tarSplit = new TarSplitText();
  readonly #queue: FrameQueue;
  #headers: Buffer[] = [];
  #headerBytes = 0;
  #entry: TarEntry | undefined;
  #contentLeft = 0;
  #frames: ContentFrames | undefined;
  #crc = new Crc64();
  entryCount = 0;
  contentCount = 0;
  chunkCount = 0;

  constructor(queue: FrameQueue) {
    this.#queue = queue;
  }

  entry(entry: TarEntry, contentBytes: number, raw: Buffer): void {
    tocType(entry);
    this.trailer(raw);
    this.entryCount += 1;
    if (contentBytes > 0) {
      this.contentCount += 1;
      this.flushHeaders();
      this.#entry = entry;
      this.#contentLeft = contentBytes;
      this.#frames = new ContentFrames(this.#queue, contentBytes);
      this.#crc = new Crc64();
      return;
    }
    // The reference writer sums an empty content where a header without content states a size.
    this.tarSplit.entry(entry, entry.sizeBytes > 0 ? new Crc64().digest() : undefined);
    this.#queue.after(() => this.#tocEntry(entry, undefined));
  }

  content(bytes: Buffer): void {
    const frames = this.#frames!;
    this.#crc.update(bytes);
    frames.push(bytes);
    this.#contentLeft -= bytes.length;
    if (this.#contentLeft > 0) return;
    const entry = this.#entry!;
    this.tarSplit.entry(entry, this.#crc.digest());
    this.#queue.after(() => this.#tocEntry(entry, frames));
  }

  trailer(raw: Buffer): void {
    this.tarSplit.raw(raw);
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
    const content = frames?.toc;
    this.chunkCount += Math.max(0, (content?.chunks.length ?? 0) - 1);
    this.toc.add(this.#separator() + tocText(entry, content));
  }

  #isFirst = true;
  #separator(): string {
    if (!this.#isFirst) return ',';
    this.#isFirst = false;
    return '{"version":1,"entries":[';
  }
}

/** Writes TOC, tar-split and footer behind the frames; the annotations that point at them. */
async function writeTables(
  state: LayerState,
  dataEnd: number,
  write: (bytes: Buffer) => void,
): Promise<Record<string, string>> {
  const tarSplit = await squeeze(state.tarSplit.toBuffer());
  const lead = state.entryCount === 0 ? '{"version":1,"entries":null' : ']';
  state.toc.add(`${lead},"tarSplitDigest":"${tarSplit.digest}"}`);
  const toc = await squeeze(state.toc.toBuffer());
  const tocOffset = dataEnd + 8;
  const tarSplitOffset = tocOffset + toc.bytes.length + 8;
  const positions = [
    [tocOffset, toc.bytes.length, toc.rawBytes, MANIFEST_TYPE],
    [tarSplitOffset, tarSplit.bytes.length, tarSplit.rawBytes],
  ] as const;
  const footer = Buffer.alloc(64);
  positions.flat().forEach((value, index) => {
    footer.writeBigUInt64LE(BigInt(value), index * 8);
  });
  footer.write(FOOTER_MAGIC, 56, 'latin1');
  for (const content of [toc.bytes, tarSplit.bytes, footer]) write(skippable(content));
  return {
    [`${PREFIX}manifest-checksum`]: toc.digest,
    [`${PREFIX}manifest-position`]: positions[0].join(':'),
    [`${PREFIX}tarsplit-position`]: positions[1].join(':'),
  };
}

async function squeeze(raw: Buffer): Promise<{ bytes: Buffer; rawBytes: number; digest: Digest }> {
  const bytes = await compress(raw);
  const digest = digestOfBytes(createHash('sha256').update(bytes).digest());
  return { bytes, rawBytes: raw.length, digest };
}

/** A frame that every zstd decoder passes over (RFC 8878, section 3.1.2). */
function skippable(content: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(SKIPPABLE_MAGIC, 0);
  head.writeUInt32LE(content.length, 4);
  return Buffer.concat([head, content]);
}

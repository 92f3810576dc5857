import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { digestOfBytes } from '../../src/format/digest.js';
import { formatBytes } from '../../src/format/figures.js';
import {
  type Compression,
  compressionOf,
  HEAD_BYTES,
  otherCompression,
} from '../../src/format/layer-format.js';
import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../../src/format/metadata-position.js';
import type { DecodeBlobResult, DecodeBlobTask, StreamFault } from '../../src/pool/messages.js';
import { acquireRoom, type DecodedRoom, largeWindowsOf, roomLeft } from '../../src/pool/shared-memory.js';
import { threadClock } from '../../src/pool/stage-clock.js';
import { ExtentList, type ExtentRows } from '../../src/store/extents.js';
import { ifMissing, PackReader } from '../../src/store/pack-reader.js';
import { paths, portMessages, setup } from '../context.js';
import { GzipDecoder } from './gzip-decoder.js';
import { GzipMembersDecoder } from './gzip-members.js';
import { largeWindows } from './large-windows.js';
import { OpaqueWriter } from './opaque-writer.js';
import { DecodedQueue, type StreamDecoder, StreamProblem, UnclearEnd } from './stream-decoder.js';
import { ZstdDecoder } from './zstd-decoder.js';
import { bestZstdEngine } from './zstd-engine.js';

/** Blocks of 1 MiB hashed before other tasks of this thread may run. */
const BLOCKS_A_TURN = 8;

/** Decodes and hashes an opaque blob, whose raw bytes arrive through the port. */
export async function decodeBlob(task: DecodeBlobTask): Promise<DecodeBlobResult> {
  const { counters } = setup;
  const report = (rows: ExtentRows) => task.port.postMessage(rows);
  const writer = new OpaqueWriter({ paths, counters, cached: task.cached, report });
  const stream = new Stream(task, writer);
  const raw = new ExtentList();
  try {
    const blobDigest = await hashAndDecode(task, stream, raw);
    if (blobDigest !== null) await stream.end();
    if (stream.hasUnclearEnd && blobDigest === task.blob.digest) {
      stream.fault = (await findEnd(raw)) ?? stream.fault;
    }
    writer.end();
    task.port.postMessage(null);
    const { pack, tarBytes } = writer;
    const { compression, fault } = stream;
    return { blobDigest, tarBytes, pack, compression, ...(fault && { problem: fault }) };
  } finally {
    await stream.close();
    writer.close();
    task.port.close();
  }
}

/**
 * Returns the digest of the blob, whether it can be decoded or not; null if a pack has lost some
 * bytes. Appends all extents of the blob to `raw`.
 */
async function hashAndDecode(
  task: DecodeBlobTask,
  stream: Stream,
  raw: ExtentList,
): Promise<DecodeBlobResult['blobDigest']> {
  const hash = createHash('sha256');
  const reader = new PackReader(paths);
  let blocks = 0;
  try {
    for await (const rows of portMessages<ExtentRows>(task.port)) {
      const extents = ExtentList.fromRows(rows);
      raw.append(extents);
      let started = threadClock.start();
      for (const block of reader.blocks(extents)) {
        threadClock.end('hash', started, 0);
        const room = stream.write(block);
        started = threadClock.start();
        hash.update(block);
        threadClock.end('hash', started, block.length);
        await room;
        blocks += 1;
        if (blocks % BLOCKS_A_TURN === 0) await nextTurn();
        started = threadClock.start();
      }
    }
  } catch (error) {
    return ifMissing(error, null);
  } finally {
    reader.close();
  }
  return digestOfBytes(hash.digest());
}

/**
 * Finds the problem of a gzip blob with an invalid end by decoding it again, member by member.
 * Returns undefined for a problem that only zlib detects, such as the checksum of a header.
 */
async function findEnd(raw: ExtentList): Promise<StreamFault | undefined> {
  const reader = new PackReader(paths);
  const out = new DecodedQueue(() => {});
  const decoder = new GzipMembersDecoder(out);
  try {
    for (const block of reader.blocks(raw)) {
      await decoder.write(block);
      await nextTurn();
    }
    await decoder.end();
    return undefined;
  } catch (error) {
    if (error instanceof StreamProblem) return faultOf(error, raw.lengthBytes);
    throw error;
  } finally {
    out.close();
    await decoder.close();
    reader.close();
  }
}

function faultOf({ code, message, hint, blobAt }: StreamProblem, reachedAt: number): StreamFault {
  return { code, message, blobAt: blobAt ?? reachedAt, ...(hint !== undefined && { hint }) };
}

/** Decodes a blob to a tar, up to the first problem. */
class Stream {
  fault: StreamFault | undefined;
  /** Whether the problem may be that there are bytes after the last gzip member. */
  hasUnclearEnd = false;
  readonly #writer: OpaqueWriter;
  /** Decoded bytes that need none of `room`. */
  readonly #freeBytes: number;
  readonly #room: DecodedRoom;
  /** Decoded bytes acquired from `room`. */
  #takenBytes: number;
  readonly #out: DecodedQueue;
  readonly #decoder: BlobDecoder;
  #blobBytes = 0;
  #tarBytes = 0;
  /** The error of the writer. */
  #refusal: { readonly error: unknown } | undefined;

  constructor({ compression, blob, room, takenBytes }: DecodeBlobTask, writer: OpaqueWriter) {
    this.#freeBytes = blob.sizeBytes * MAX_DECODED_RATIO;
    this.#room = room;
    this.#takenBytes = takenBytes;
    this.#writer = writer;
    this.#out = new DecodedQueue((bytes) => this.#write(bytes));
    this.#decoder = new BlobDecoder(compression, this.#out);
  }

  /** The compression in use. */
  get compression(): Compression {
    return this.#decoder.compression;
  }

  async write(bytes: Buffer): Promise<void> {
    if (this.fault === undefined) await this.#attempt(this.#decoder.write(bytes));
    this.#blobBytes += bytes.length;
  }

  async end(): Promise<void> {
    if (this.fault === undefined) await this.#attempt(this.#decoder.end());
  }

  close(): Promise<void> {
    this.#out.close();
    return this.#decoder.close();
  }

  /** After an error, closes the decoder at once: its input may decode to GiBs more. */
  #write(bytes: Buffer): void {
    try {
      this.#tarBytes += bytes.length;
      this.#acquireRoom();
      if (this.compression !== 'tar') threadClock.addBytes('decode', bytes.length);
      this.#writer.write(bytes);
    } catch (error) {
      this.#refusal ??= { error };
      void this.#decoder.close();
      throw error;
    }
  }

  #acquireRoom(): void {
    const bytes = this.#tarBytes - this.#freeBytes - this.#takenBytes;
    if (bytes <= 0) return;
    if (!acquireRoom(this.#room, bytes))
      throw tooLarge(this.#freeBytes + this.#takenBytes + roomLeft(this.#room));
    this.#takenBytes += bytes;
  }

  async #attempt(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (failure) {
      const error = this.#refusal === undefined ? failure : this.#refusal.error;
      if (!(error instanceof StreamProblem)) throw error;
      this.hasUnclearEnd = error instanceof UnclearEnd;
      this.fault = faultOf(error, this.#blobBytes);
      await this.close();
    }
  }
}

function tooLarge(maxTarBytes: number): StreamProblem {
  return new StreamProblem(
    `decodes to more than ${formatBytes(maxTarBytes)}, the limit for its length`,
    undefined,
    'metadata-malformed',
    `what is packed denser than ${MAX_DECODED_RATIO} to 1, and ${formatBytes(FREE_DECODED_BYTES)} more for all layers together, is taken for an attack; an image that needs it can be pushed as gzip`,
  );
}

/**
 * Decodes a blob by the format of its first bytes, as other clients do: media types are often
 * wrong.
 */
export class BlobDecoder implements StreamDecoder {
  /** As stated, until the first bytes are known. */
  compression: Compression;
  readonly #out: DecodedQueue;
  #decoder: StreamDecoder | undefined;
  /** The first bytes, while they are too few to decide. */
  #head = Buffer.alloc(0);

  constructor(stated: Compression, out: DecodedQueue) {
    this.compression = stated;
    this.#out = out;
  }

  async write(bytes: Buffer): Promise<void> {
    if (this.#decoder !== undefined) return this.#decoder.write(bytes);
    const head = this.#head.length === 0 ? bytes : Buffer.concat([this.#head, bytes]);
    if (head.length >= HEAD_BYTES) return this.#begin(head).write(head);
    this.#head = Buffer.from(head);
  }

  async end(): Promise<void> {
    const head = this.#head;
    if (this.#decoder === undefined && head.length > 0) await this.#begin(head).write(head);
    await (this.#decoder ?? this.#begin(head)).end();
  }

  async close(): Promise<void> {
    await this.#decoder?.close();
  }

  #begin(bytes: Buffer): StreamDecoder {
    const head = bytes.subarray(0, HEAD_BYTES);
    const other = otherCompression(head);
    if (other !== undefined) {
      throw new StreamProblem(
        `is compressed by ${other}, which is not supported`,
        0,
        'unsupported',
        'decompress its layers with skopeo copy docker://IMAGE docker-archive:FILE, and push the image again from that file',
      );
    }
    this.compression = compressionOf(head, this.compression);
    this.#decoder = this.#create();
    return this.#decoder;
  }

  #create(): StreamDecoder {
    if (this.compression === 'gzip') return new GzipDecoder(this.#out);
    if (this.compression === 'tar') return tarDecoder(this.#out);
    const windows = largeWindows(largeWindowsOf(setup.counters));
    return new ZstdDecoder(bestZstdEngine(), this.#out, windows);
  }
}

/** For a blob that is a tar already. */
function tarDecoder(out: DecodedQueue): StreamDecoder {
  return {
    write(bytes) {
      out.push(Buffer.from(bytes));
      return out.room();
    },
    end: () => out.drained(),
    close: async () => {},
  };
}

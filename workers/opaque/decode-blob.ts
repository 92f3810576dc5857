import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../../src/format/decoded-limits.js';
import { digestOfBytes } from '../../src/format/digest.js';
import type { Compression } from '../../src/format/layer-format.js';
import { acquireRoom, type DecodedRoom, largeWindowsOf, roomLeft } from '../../src/pool/counters.js';
import type { DecodeBlobResult, DecodeBlobTask, StreamFault } from '../../src/pool/messages.js';
import { ExtentList, type ExtentRows } from '../../src/store/extents.js';
import { MissingBytes, PackReader } from '../../src/store/pack-reader.js';
import { paths, setup } from '../context.js';
import { portMessages } from '../port-messages.js';
import { BlobDecoder } from './blob-decoder.js';
import { DecodedQueue } from './decoded-queue.js';
import { GzipMembersDecoder } from './gzip-members.js';
import { largeWindows } from './large-windows.js';
import { OpaqueWriter } from './opaque-writer.js';
import { StreamProblem, UnclearEnd } from './stream-decoder.js';

/** Blocks of 1 MiB hashed before other tasks of this thread have their turn. */
const BLOCKS_A_TURN = 8;

/** Decodes a layer that is one stream, as its raw bytes come through the port; hashes them on the way. */
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
 * The blob's digest, which does not depend on whether it can be decoded; null when a pack does not have all of it. `raw` gets
 * the extents of all of it.
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
      for (const block of reader.blocks(extents)) {
        const room = stream.write(block);
        hash.update(block);
        await room;
        blocks += 1;
        if (blocks % BLOCKS_A_TURN === 0) await nextTurn();
      }
    }
  } catch (error) {
    if (error instanceof MissingBytes) return null;
    throw error;
  } finally {
    reader.close();
  }
  return digestOfBytes(hash.digest());
}

/**
 * What is wrong with a gzip blob that did not end as it should, found by going through it once more, member by member; undefined for what
 * only zlib looks at, such as the checksum of a header.
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

function tooMuch(mostTarBytes: number): StreamProblem {
  return new StreamProblem(
    `decodes to more than ${mostTarBytes} bytes, the limit for its length`,
    undefined,
    'metadata-malformed',
    `what is packed denser than ${MAX_DECODED_RATIO} to 1, and ${FREE_DECODED_BYTES} bytes more for all layers together, is taken for an attack; an image that needs it can be pushed as gzip`,
  );
}

/** A blob on its way to a tar, until the first problem: what comes after that is not decoded any more. */
class Stream {
  fault: StreamFault | undefined;
  /** Whether the problem can be that there are bytes behind the last gzip member. */
  hasUnclearEnd = false;
  readonly #writer: OpaqueWriter;
  /** What the blob may decode to without any of the room, and what was taken of that. */
  readonly #freeBytes: number;
  readonly #room: DecodedRoom;
  #takenBytes: number;
  readonly #out: DecodedQueue;
  readonly #decoder: BlobDecoder;
  #blobBytes = 0;
  #tarBytes = 0;
  /** Why the decoded bytes were not taken. */
  #refusal: { readonly error: unknown } | undefined;

  constructor({ compression, blob, room, takenBytes }: DecodeBlobTask, writer: OpaqueWriter) {
    this.#freeBytes = blob.sizeBytes * MAX_DECODED_RATIO;
    this.#room = room;
    this.#takenBytes = takenBytes;
    this.#writer = writer;
    this.#out = new DecodedQueue((bytes) => this.#take(bytes));
    const windows = largeWindows(largeWindowsOf(setup.counters));
    this.#decoder = new BlobDecoder(compression, this.#out, windows);
  }

  /** What the blob was taken for. */
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

  /** Once they are refused, the decoder ends at once: it may have GiBs to come of what it was given. */
  #take(bytes: Buffer): void {
    try {
      this.#tarBytes += bytes.length;
      this.#acquireRoom();
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
      throw tooMuch(this.#freeBytes + this.#takenBytes + roomLeft(this.#room));
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

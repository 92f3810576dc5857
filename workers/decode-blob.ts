import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { FREE_DECODED_BYTES, MAX_DECODED_RATIO } from '../src/format/decoded-limits.js';
import { digestOfBytes } from '../src/format/digest.js';
import type {
  DecodeBlobResult,
  DecodeBlobTask,
  ExtentRows,
  StreamCompression,
  StreamFault,
} from '../src/pool/messages.js';
import { NotInPack, PackReader } from '../src/store/pack-reader.js';
import { paths, setup } from './context.js';
import { extentsOf } from './extents.js';
import { GzipDecoder } from './gzip-decoder.js';
import { Outflow } from './outflow.js';
import { portMessages } from './port-messages.js';
import { type StreamDecoder, StreamProblem } from './stream-decoder.js';
import { StreamWriter } from './stream-writer.js';
import { TarDecoder } from './tar-decoder.js';
import { ZstdDecoder } from './zstd-decoder.js';
import { bestZstdEngine } from './zstd-engine.js';

/** Blocks of 1 MiB hashed before other tasks of this thread have their turn. */
const BLOCKS_A_TURN = 8;

/** Decodes a layer that is one stream, as its raw bytes come through the port; hashes them on the way. */
export async function decodeBlob(task: DecodeBlobTask): Promise<DecodeBlobResult> {
  const { counters } = setup;
  const tell = (rows: ExtentRows) => task.port.postMessage(rows);
  const writer = new StreamWriter({ paths, counters, held: task.held, tell });
  const stream = new Stream(task, writer);
  try {
    const blobDigest = await hashAndDecode(task, stream);
    if (blobDigest !== null) await stream.end();
    writer.end();
    task.port.postMessage(null);
    const { pack, tarBytes } = writer;
    const result = { blobDigest, tarBytes, pack };
    return stream.fault === undefined ? result : { ...result, problem: stream.fault };
  } finally {
    await stream.close();
    writer.close();
    task.port.close();
  }
}

/** The blob's digest, which does not depend on whether it can be decoded; null when a pack does not have all of it. */
async function hashAndDecode(task: DecodeBlobTask, stream: Stream): Promise<DecodeBlobResult['blobDigest']> {
  const hash = createHash('sha256');
  const reader = new PackReader(paths);
  let blocks = 0;
  try {
    for await (const rows of portMessages<ExtentRows>(task.port)) {
      for (const block of reader.blocks(extentsOf(rows))) {
        const room = stream.write(block);
        hash.update(block);
        await room;
        blocks += 1;
        if (blocks % BLOCKS_A_TURN === 0) await nextTurn();
      }
    }
  } catch (error) {
    if (error instanceof NotInPack) return null;
    throw error;
  } finally {
    reader.close();
  }
  return digestOfBytes(hash.digest());
}

function tooMuch(mostTarBytes: number): StreamProblem {
  return new StreamProblem(
    `decodes to more than ${mostTarBytes} bytes, the limit for its length`,
    undefined,
    'metadata-malformed',
    `what is packed denser than ${MAX_DECODED_RATIO} to 1, and ${FREE_DECODED_BYTES} bytes more for all layers together, is taken for an attack; an image that needs it can be pushed as gzip`,
  );
}

function decoderOf(compression: StreamCompression, out: Outflow): StreamDecoder {
  if (compression === 'gzip') return new GzipDecoder(out);
  if (compression === 'zstd') return new ZstdDecoder(bestZstdEngine(), out);
  return new TarDecoder(out);
}

/** A blob on its way to a tar, until the first problem: what comes after that is not decoded any more. */
class Stream {
  fault: StreamFault | undefined;
  readonly #out: Outflow;
  readonly #decoder: StreamDecoder;
  readonly #mostTarBytes: number;
  #blobBytes = 0;
  #tarBytes = 0;
  /** Why the decoded bytes were not taken. */
  #refusal: { readonly error: unknown } | undefined;

  constructor({ compression, blob, freeBytes }: DecodeBlobTask, writer: StreamWriter) {
    this.#mostTarBytes = blob.sizeBytes * MAX_DECODED_RATIO + freeBytes;
    this.#out = new Outflow((bytes) => this.#take(bytes, writer));
    this.#decoder = decoderOf(compression, this.#out);
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
  #take(bytes: Buffer, writer: StreamWriter): void {
    try {
      this.#tarBytes += bytes.length;
      if (this.#tarBytes > this.#mostTarBytes) throw tooMuch(this.#mostTarBytes);
      writer.take(bytes);
    } catch (error) {
      this.#refusal ??= { error };
      void this.#decoder.close();
      throw error;
    }
  }

  async #attempt(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (failure) {
      const error = this.#refusal === undefined ? failure : this.#refusal.error;
      if (!(error instanceof StreamProblem)) throw error;
      const { code, message, hint, blobAt = this.#blobBytes } = error;
      this.fault = hint === undefined ? { code, message, blobAt } : { code, message, blobAt, hint };
      await this.close();
    }
  }
}

import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
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
  const stream = new Stream(task.compression, writer);
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
  #blobBytes = 0;

  constructor(compression: StreamCompression, writer: StreamWriter) {
    this.#out = new Outflow(writer.take);
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

  async #attempt(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (!(error instanceof StreamProblem)) throw error;
      const { code, message, blobAt = this.#blobBytes } = error;
      this.fault = { code, message, blobAt };
      await this.close();
    }
  }
}

import { ZSTDDecoder } from 'zstddec';
import { RESOURCE_LIMITS } from '../../src/files/storage-error.js';
import { PullError } from '../../src/format/error.js';
import { DECODE_CALL_BYTES } from '../../src/format/metadata-position.js';

/**
 * Decodes complete zstd frames (RFC 8878) to at most `maxBytes`, up to 32 MiB. Synchronous. The
 * result is valid until the next call in this thread: all calls write to the same buffer.
 * @throws PullError `metadata-malformed` if the bytes are no valid frames or decode to more
 */
export type FrameDecoder = (frames: Uint8Array, maxBytes: number) => Buffer;

/** Initial room for compressed bytes; frames that need more are rare. */
const SOURCE_BYTES = 2 ** 20;

/** The exports of zstddec's WebAssembly module: parts of libzstd 1.5.7 (zstd.h), and its heap. */
interface Libzstd {
  readonly memory: { readonly buffer: ArrayBuffer };
  malloc(sizeBytes: number): number;
  free(address: number): void;
  /** Returns the decoded length, or an error code below 0. Never writes more than `targetBytes`. */
  ZSTD_decompress(target: number, targetBytes: number, source: number, sourceBytes: number): number;
}

/** The errors of data (zstd_errors.h), by number. */
const ERRORS: Readonly<Record<number, string>> = {
  10: 'unknown frame',
  20: 'data corruption detected',
  22: 'the checksum is wrong',
  70: 'it decodes to more than it may',
  72: 'a frame is cut off',
};

/** ZSTD_error_memory_allocation. */
const OUT_OF_MEMORY = 64;

let decoder: Promise<FrameDecoder> | undefined;

/**
 * Returns the decoder of this thread, which the first call makes.
 * @throws PullError `store-broken` if there is no address space for it: WebAssembly reserves 10 GiB
 */
export function frameDecoder(): Promise<FrameDecoder> {
  decoder ??= loadLibzstd().then(createDecoder);
  return decoder;
}

/**
 * Returns the module of zstddec, whose own `decode` returns a new buffer each time and does not
 * distinguish an error from no bytes. `fetch` is removed meanwhile: with it, zstddec would load its
 * 60 KB, and Node its HTTP client, which takes 45 ms and 11 MB a thread.
 */
async function loadLibzstd(): Promise<Libzstd> {
  const zstd = new ZSTDDecoder();
  const init = zstd._init;
  let exports: unknown;
  zstd._init = (source: { readonly instance: { readonly exports: unknown } }) => {
    exports = source.instance.exports;
    init(source);
  };
  const { fetch } = globalThis;
  Reflect.deleteProperty(globalThis, 'fetch');
  const ready = zstd.init();
  globalThis.fetch = fetch;
  try {
    await ready;
  } catch (error) {
    throw error instanceof RangeError ? outOfMemory(error) : error;
  }
  return exports as Libzstd;
}

/**
 * WebAssembly memory is resident only where it was written: unused room for the largest call costs
 * nothing.
 */
function createDecoder(libzstd: Libzstd): FrameDecoder {
  const target = allocate(libzstd, DECODE_CALL_BYTES);
  let source = { at: allocate(libzstd, SOURCE_BYTES), sizeBytes: SOURCE_BYTES };
  let heap = Buffer.alloc(0);
  return (frames, maxBytes) => {
    const { length } = frames;
    if (length > source.sizeBytes) {
      libzstd.free(source.at);
      source = { at: allocate(libzstd, length), sizeBytes: length };
    }
    // A buffer that has grown is another one.
    if (heap.buffer !== libzstd.memory.buffer) heap = Buffer.from(libzstd.memory.buffer);
    heap.set(frames, source.at);
    const targetBytes = Math.min(maxBytes, DECODE_CALL_BYTES);
    const decoded = libzstd.ZSTD_decompress(target, targetBytes, source.at, length);
    if (decoded === -OUT_OF_MEMORY) throw outOfMemory();
    if (decoded < 0) throw malformedFrames(ERRORS[-decoded] ?? `libzstd error ${-decoded}`);
    if (heap.buffer !== libzstd.memory.buffer) heap = Buffer.from(libzstd.memory.buffer);
    return heap.subarray(target, target + decoded);
  };
}

function allocate(libzstd: Libzstd, sizeBytes: number): number {
  const address = libzstd.malloc(sizeBytes);
  if (address === 0) throw outOfMemory();
  return address;
}

function outOfMemory(cause?: unknown): PullError {
  const { code, hint } = RESOURCE_LIMITS.ENOMEM;
  return new PullError(code, 'a thread has no memory to decode zstd frames', { hint, cause });
}

function malformedFrames(reason: string): PullError {
  return new PullError('metadata-malformed', `the compressed data cannot be decoded (${reason})`);
}

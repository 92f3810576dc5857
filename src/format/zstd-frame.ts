import { enlarged } from './arrays.js';
import { PullError } from './error.js';

/** Block_Maximum_Size (RFC 8878, section 3.1.1.2.4): no block is longer, compressed or not. */
export const MAX_BLOCK_BYTES = 128 * 2 ** 10;
/**
 * The largest window `zstd -d` accepts without --long, and the memory a streaming decoder may take
 * by default.
 */
export const MAX_USUAL_WINDOW_BYTES = 128 * 2 ** 20;
/** That window in a frame header: exponent 27, mantissa 0 (RFC 8878, section 3.1.1.1.2). */
const USUAL_WINDOW_DESCRIPTOR = 17 << 3;

/**
 * Length of a skippable frame's header (RFC 8878, section 3.1.2). TOC and tar-split each follow
 * one.
 */
export const SKIPPABLE_HEADER_BYTES = 8;

const FRAME_MAGIC = 0xfd2fb528;
/** Skippable frames have sixteen magic numbers, which differ in the last four bits. */
const SKIPPABLE_MAGIC = 0x184d2a50;
const MAGIC_BYTES = 4;
const BLOCK_HEADER_BYTES = 3;
const CHECKSUM_BYTES = 4;
/** Lengths of the fields that the frame header descriptor states by two bits each. */
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;

/** What comes next at `#offset`. */
type Stage = 'frame' | 'block' | 'checksum' | 'frame-end';

/**
 * Finds the ends of zstd frames (RFC 8878, section 3.1) in bytes as they arrive, by block headers
 * alone, and bounds what each frame can decode to. Decodes nothing, and reads no byte twice.
 *
 * The owner keeps one buffer that begins at a frame. It calls `advance` after adding bytes, decodes
 * complete frames, drops them from the front of its buffer and calls `cut`. All offsets are
 * relative to that buffer.
 */
export class FrameWalker {
  /** Number of complete frames in the buffer, skippable ones included. */
  frameCount = 0;
  /** Most bytes that the incomplete frame at the end decodes to, as far as its blocks are known. */
  openFrameBound = 0;
  /** Least number of bytes needed to complete the incomplete frame; 0 if there is none. */
  needBytes = 0;
  /** Window of the current frame in bytes; 0 for a skippable frame, which decodes to nothing. */
  windowBytes = 0;
  /** Largest window of all frames so far, in bytes. */
  largestWindowBytes = 0;

  /**
   * `#ends[i]` is where frame i ends; `#bounds[i]` is the most that frames 0 to i decode to
   * together.
   */
  #ends = new Float64Array(64);
  #bounds = new Float64Array(64);
  #base: number;
  readonly #maxWindowBytes: number;
  #stage: Stage = 'frame';
  #offset = 0;
  #length = 0;
  #hasChecksum = false;
  #maxBlockBytes = 0;

  /** `baseOffset` is the blob offset of the first byte of the buffer, for error messages. */
  constructor(baseOffset = 0, maxWindowBytes = MAX_USUAL_WINDOW_BYTES) {
    this.#base = baseOffset;
    this.#maxWindowBytes = maxWindowBytes;
  }

  /** Offset where the last complete frame ends, 0 if there is none. */
  get completeBytes(): number {
    return this.frameCount === 0 ? 0 : this.#ends[this.frameCount - 1]!;
  }

  /** Least length of the incomplete frame, the bytes still needed included; 0 if there is none. */
  get openFrameBytes(): number {
    return this.#length - this.completeBytes + this.needBytes;
  }

  /** Returns the offset where frame `index` ends. */
  frameEnd(index: number): number {
    return this.#ends[index]!;
  }

  /** Returns the most bytes that the frames up to and including `index` decode to. */
  boundUpTo(index: number): number {
    return this.#bounds[index]!;
  }

  /**
   * Reads on in buffer[0, lengthBytes), which begins with the bytes of the last call.
   * @throws PullError `metadata-malformed` with the blob offset if it is not a zstd frame,
   *   `unsupported` for a window above the limit
   */
  advance(buffer: Uint8Array, lengthBytes: number): void {
    this.#length = lengthBytes;
    for (;;) {
      const missing = this.#step(buffer, lengthBytes);
      if (missing === 0) continue;
      const started = this.#stage !== 'frame' || this.#offset < lengthBytes;
      this.needBytes = started ? missing : 0;
      return;
    }
  }

  /**
   * Adjusts to a buffer without its first `offset` bytes.
   * @throws PullError `internal` if no frame ends there
   */
  cut(offset: number): void {
    if (offset === 0) return;
    let dropped = 0;
    while (dropped < this.frameCount && this.#ends[dropped]! < offset) dropped++;
    if (dropped === this.frameCount || this.#ends[dropped] !== offset) {
      throw new PullError('internal', `No zstd frame ends at byte ${this.#base + offset}`);
    }
    const bound = this.#bounds[dropped]!;
    dropped++;
    const left = this.frameCount - dropped;
    for (let i = 0; i < left; i++) {
      this.#ends[i] = this.#ends[i + dropped]! - offset;
      this.#bounds[i] = this.#bounds[i + dropped]! - bound;
    }
    this.frameCount = left;
    this.#offset -= offset;
    this.#length -= offset;
    this.#base += offset;
  }

  /** Blob offset of the next header, for errors. */
  get blobAt(): number {
    return this.#base + this.#offset;
  }

  /**
   * Bytes of the buffer that are not needed any more while it has no complete frame: frames too
   * long to collect are passed on up to here, and dropped with `pass`.
   */
  get passableBytes(): number {
    return this.frameCount > 0 || this.#stage === 'frame' ? 0 : Math.min(this.#offset, this.#length);
  }

  /** Adjusts to a buffer without its first `bytes` bytes, which are `passableBytes` at most. */
  pass(bytes: number): void {
    if (bytes > this.passableBytes) throw new PullError('internal', 'bytes of a zstd frame are still needed');
    this.#offset -= bytes;
    this.#length -= bytes;
    this.#base += bytes;
  }

  /** Passes one header. Returns the number of bytes missing to do so, 0 if done. */
  #step(buffer: Uint8Array, lengthBytes: number): number {
    const available = lengthBytes - this.#offset;
    switch (this.#stage) {
      case 'frame':
        return this.#frameHeader(buffer, available);
      case 'block':
        return this.#blockHeader(buffer, available);
      case 'checksum':
        this.#offset += CHECKSUM_BYTES;
        this.#stage = 'frame-end';
        return 0;
      case 'frame-end':
        if (available < 0) return -available;
        this.#endFrame();
        return 0;
    }
  }

  #frameHeader(buffer: Uint8Array, available: number): number {
    if (available < MAGIC_BYTES) return MAGIC_BYTES - available;
    const magic = readUint32(buffer, this.#offset);
    if ((magic & ~0xf) >>> 0 === SKIPPABLE_MAGIC) {
      if (available < SKIPPABLE_HEADER_BYTES) return SKIPPABLE_HEADER_BYTES - available;
      this.windowBytes = 0;
      this.#offset += SKIPPABLE_HEADER_BYTES + readUint32(buffer, this.#offset + MAGIC_BYTES);
      this.#stage = 'frame-end';
      return 0;
    }
    if (magic !== FRAME_MAGIC) throw this.#malformed('no zstd frame begins');
    if (available <= MAGIC_BYTES) return 1;
    const descriptor = buffer[this.#offset + MAGIC_BYTES]!;
    const headerBytes = frameHeaderBytes(descriptor);
    if (available < headerBytes) return headerBytes - available;
    if ((descriptor & 0x08) !== 0) throw this.#malformed('the reserved bit of a zstd frame is set');
    this.#readHeader(buffer, descriptor, headerBytes);
    return 0;
  }

  /** Reads a complete header: dictionary, window and checksum flag. */
  #readHeader(buffer: Uint8Array, descriptor: number, headerBytes: number): void {
    const singleSegment = (descriptor & 0x20) !== 0;
    let at = this.#offset + MAGIC_BYTES + 1;
    let windowBytes = 0;
    if (!singleSegment) {
      const window = buffer[at++]!;
      windowBytes = 2 ** (10 + (window >> 3)) * (1 + (window & 7) / 8);
    }
    const dictionaryEnd = at + DICTIONARY_ID_BYTES[(descriptor & 3) as 0 | 1 | 2 | 3];
    for (; at < dictionaryEnd; at++) {
      if (buffer[at] !== 0) throw this.#malformed('a zstd frame needs a dictionary');
    }
    if (singleSegment) {
      // The field of two bytes is the only one that adds 256; here the window is the content.
      const contentEnd = this.#offset + headerBytes;
      for (let i = contentEnd - 1; i >= at; i--) windowBytes = windowBytes * 256 + buffer[i]!;
      if (contentEnd - at === 2) windowBytes += 256;
    }
    this.windowBytes = windowBytes;
    this.largestWindowBytes = Math.max(this.largestWindowBytes, windowBytes);
    if (windowBytes > this.#maxWindowBytes) {
      throw new PullError(
        'unsupported',
        `The zstd frame at byte ${this.#base + this.#offset} needs a window of ${windowBytes} bytes; at most ${this.#maxWindowBytes} are supported`,
      );
    }
    this.#maxBlockBytes = Math.min(windowBytes, MAX_BLOCK_BYTES);
    this.#hasChecksum = (descriptor & 0x04) !== 0;
    this.#offset += headerBytes;
    this.#stage = 'block';
  }

  #blockHeader(buffer: Uint8Array, available: number): number {
    if (available < BLOCK_HEADER_BYTES) return BLOCK_HEADER_BYTES - available;
    const at = this.#offset;
    const header = buffer[at]! | (buffer[at + 1]! << 8) | (buffer[at + 2]! << 16);
    const type = (header >> 1) & 3;
    const sizeBytes = header >> 3;
    if (type === 3) throw this.#malformed('a zstd block has the reserved type');
    if (sizeBytes > this.#maxBlockBytes) {
      throw this.#malformed(
        `a zstd block is ${sizeBytes} bytes long, above its frame's ${this.#maxBlockBytes}`,
      );
    }
    // Raw (0) and RLE (1) blocks state their decoded length; an RLE block is one byte in the blob.
    this.openFrameBound += type === 2 ? this.#maxBlockBytes : sizeBytes;
    this.#offset = at + BLOCK_HEADER_BYTES + (type === 1 ? 1 : sizeBytes);
    if ((header & 1) !== 0) this.#stage = this.#hasChecksum ? 'checksum' : 'frame-end';
    return 0;
  }

  #endFrame(): void {
    const index = this.frameCount;
    if (index === this.#ends.length) {
      this.#ends = enlarged(this.#ends, index * 2);
      this.#bounds = enlarged(this.#bounds, index * 2);
    }
    const before = index === 0 ? 0 : this.#bounds[index - 1]!;
    this.#ends[index] = this.#offset;
    this.#bounds[index] = before + this.openFrameBound;
    this.frameCount = index + 1;
    this.openFrameBound = 0;
    this.#stage = 'frame';
  }

  #malformed(problem: string): PullError {
    const at = this.#base + this.#offset;
    return new PullError('metadata-malformed', `At byte ${at} of the blob ${problem}`);
  }
}

/**
 * Lowers the window that the frame at `start` requires to the usual one. For frames that decode to
 * no more than that: nothing in them refers to bytes before their beginning.
 */
export function limitWindow(frames: Uint8Array, start: number): void {
  if (readUint32(frames, start) !== FRAME_MAGIC || (frames[start + MAGIC_BYTES]! & 0x20) !== 0) return;
  const at = start + MAGIC_BYTES + 1;
  if (frames[at]! > USUAL_WINDOW_DESCRIPTOR) frames[at] = USUAL_WINDOW_DESCRIPTOR;
}

/**
 * Returns the length of a frame's header, magic number included, by its descriptor (RFC 8878,
 * section 3.1.1.1).
 */
function frameHeaderBytes(descriptor: number): number {
  const singleSegment = (descriptor >> 5) & 1;
  const contentFlag = (descriptor >> 6) as 0 | 1 | 2 | 3;
  const contentBytes = contentFlag === 0 ? singleSegment : CONTENT_SIZE_BYTES[contentFlag];
  const dictionaryBytes = DICTIONARY_ID_BYTES[(descriptor & 3) as 0 | 1 | 2 | 3];
  return MAGIC_BYTES + 1 + (1 - singleSegment) + dictionaryBytes + contentBytes;
}

function readUint32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

import type { Digest } from '../format/digest.js';
import type { Compression } from '../format/layer-format.js';

/** Tasks of `workers/measure`: parts of a pull's work, each by itself. */

/** What a thread has done, and when, by the clock that all threads share. */
export interface MeasuredWork {
  readonly bytes: number;
  readonly startedMs: number;
  readonly endedMs: number;
}

/** A blob of a layout on this machine. */
export interface MeasuredBlob {
  readonly url: string;
  readonly digest: Digest;
  /** Used if the first bytes do not say which. */
  readonly compression: Compression;
  /** Whether the threads that fetch decode it, frame by frame. */
  readonly isZstdChunked: boolean;
}

/** Reads blobs, so that the system has them in memory. */
export interface MeasureReadTask {
  readonly task: 'measure-read';
  readonly blobs: readonly MeasuredBlob[];
  readonly maxBytes: number;
}

/** Decodes blobs one after the other, and drops what they decode to. */
export interface MeasureDecodeTask {
  readonly task: 'measure-decode';
  readonly blobs: readonly MeasuredBlob[];
  /** Ends after so many decoded bytes, or so many bytes of blobs. */
  readonly maxBytes: number;
}

/** `bytes` counts decoded bytes. */
export interface MeasureDecodeResult extends MeasuredWork {
  readonly blobBytes: number;
  /** Whether it ended before the last blob did. */
  readonly isPartial: boolean;
}

/** Hashes bytes from memory. */
export interface MeasureHashTask {
  readonly task: 'measure-hash';
  readonly bytes: number;
}

/** Writes a file into a directory and syncs it. The file loses its name before its first byte. */
export interface MeasureWriteTask {
  readonly task: 'measure-write';
  readonly directory: string;
  readonly bytes: number;
}

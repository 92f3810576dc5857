import type { MessagePort } from 'node:worker_threads';
import type { OwnFile } from '../files/own-file.js';
import type { Digest } from '../format/digest.js';
import type { Failure } from '../format/error.js';
import type { LayerTable } from '../format/layer-table.js';
import type { BlobSource } from '../registry/range-client.js';
import type { PackId } from '../store/paths.js';
import type { LastBytes, MetadataPartWithDigest } from './metadata-tasks.js';
import type { RangeControl } from './range-control.js';

/** Tasks of `workers/fetch`. */

/** Requests the size of a blob whose descriptor does not state it; fetches at most a byte. */
export interface MeasureBlobTask {
  readonly task: 'measure-blob';
  readonly blob: BlobSource;
}

export interface MeasureBlobResult {
  /** As the registry states it, unverified. */
  readonly sizeBytes: number;
  readonly fetchedBytes: number;
  readonly requests: number;
}

/** What a task requested and received, whether or not it succeeded. */
export interface Fetched {
  readonly fetchedBytes: number;
  readonly requests: number;
  /** Why the task failed. */
  readonly failure?: Failure;
}

/** A task that fetches one range, which the main thread may stop. */
export interface RangeTask {
  /** Left out, the range cannot be stopped and reports no progress. */
  readonly control?: RangeControl;
}

/** Bytes in a pack. */
export interface PackRun {
  readonly pack: PackId;
  readonly packOffset: number;
  readonly lengthBytes: number;
}

/** Fetches one span, decodes it piece by piece, checks it and appends it to the thread's pack. */
export interface FetchSpanTask extends RangeTask {
  readonly task: 'fetch-span';
  /** Position in the pull's order: the thread decodes earlier spans first. */
  readonly sequence: number;
  readonly blob: BlobSource;
  readonly table: LayerTable;
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
  /** Bytes that the span need not fetch. */
  readonly lastBytes?: LastBytes;
  /** Compressed bytes to collect before they are decoded. */
  readonly pieceBytes: number;
  /**
   * Whether to compute the digests of contents, although the DiffID proves the layer. Without
   * tar-split they are always computed.
   */
  readonly checkContents: boolean;
  /**
   * Whether to report where contents lie. Without tar-split, the tar offsets of the table do not
   * say it.
   */
  readonly tellPlaces?: boolean;
}

/** A content, or a chunk of one, with the right digest. */
export interface ContentPlace {
  /** Row of the layer's table. */
  readonly row: number;
  /** Offset in the content. */
  readonly start: number;
  readonly lengthBytes: number;
  readonly packOffset: number;
}

export interface FetchSpanResult extends Fetched {
  readonly pack: PackId;
  readonly packOffset: number;
  /**
   * The length of the good part of the span, from its start: all of it, unless there is `wrong`.
   */
  readonly goodTarBytes: number;
  /** In the order of the tar; only if the task requests them. */
  readonly places?: readonly ContentPlace[];
  /** The end of a span that was stopped. */
  readonly stopped?: { readonly blobEnd: number; readonly tarEnd: number };
  /** The first error; everything before it is good. */
  readonly wrong?: WrongBytes & {
    /** Whether there is another endpoint, which has sent no wrong bytes of this blob yet. */
    readonly elsewhere: boolean;
  };
}

/** Bytes that are not what the metadata promises. */
export interface WrongBytes {
  /** Where to fetch again: the start of a frame. */
  readonly blobStart: number;
  readonly tarStart: number;
  /** Row of the content, or -1 if `problem` is the full description. */
  readonly content: number;
  readonly expected?: Digest;
  readonly actual?: Digest;
  readonly problem: string;
}

/** Appends ranges of tar-split, in order and without gaps, to the thread's pack. */
export interface WriteInlineTask {
  readonly task: 'write-inline';
  readonly blob: BlobSource;
  readonly tarSplit: MetadataPartWithDigest;
  /** Pairs [start, end) of tar offsets, ascending. */
  readonly ranges: Float64Array;
}

/** Fetches a range of a blob and writes it, without decoding, to its offset in a file. */
export interface CopyRangeTask extends RangeTask {
  readonly task: 'copy-range';
  readonly blob: BlobSource;
  readonly start: number;
  readonly end: number;
  readonly file: OwnFile;
  /** Offset of the blob in the file. */
  readonly position: number;
  /** Records which ranges of the file are complete. */
  readonly journal: OwnFile;
}

export interface CopyRangeResult extends Fetched {
  /** As in `FetchOpaqueResult`. */
  readonly stoppedAt?: number;
  /** As in `FetchOpaqueResult`. */
  readonly sender: number;
  /** Whether the server sent the full blob instead of the range. */
  readonly isWhole: boolean;
}

/**
 * Hashes a part of a file as it grows: `port` receives the offsets up to which it is written, then
 * `null`.
 */
export interface HashFileTask {
  readonly task: 'hash-file';
  readonly path: string;
  /** The same file, if this process made it. */
  readonly file?: OwnFile;
  readonly position: number;
  readonly port: MessagePort;
}

export interface HashFileResult {
  readonly digest: Digest;
}

/** Finds the path of a content, for an error message. */
export interface NameContentTask {
  readonly task: 'name-content';
  readonly toc: Digest;
  readonly tocUncompressedBytes: number;
  readonly content: number;
}

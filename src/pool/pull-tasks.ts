import type { MessagePort } from 'node:worker_threads';
import type { OwnFile } from '../files/guarded-directory.js';
import type { Digest } from '../format/digest.js';
import type { Failure } from '../format/error.js';
import type { Compression, LayerFormat, MetadataLocation } from '../format/layer-format.js';
import type { LayerTable } from '../format/layer-table.js';
import type { ChunkedPositions } from '../format/metadata-position.js';
import type { LayerToPlan, ResumedPiece } from '../plan/layer-parts.js';
import type { BlobSource } from '../registry/range-client.js';
import type { CachedContentRows } from '../store/cached-contents.js';
import type { ExtentRows } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { DecodedRoom, RangeControl } from './shared-memory.js';

/** Tasks that bring layers into the store: of `workers/metadata`, `workers/fetch` and `workers/opaque`. */

/** What a task requested and received, whether or not it succeeded. */
interface Fetched {
  readonly fetchedBytes: number;
  readonly requests: number;
  /** Why the task failed. */
  readonly failure?: Failure;
}

/** A task that fetches one range, which the main thread may stop. */
interface RangeTask {
  /** Left out, the range cannot be stopped and reports no progress. */
  readonly control?: RangeControl;
}

/** Bytes in a pack. */
export interface PackRun {
  readonly pack: PackId;
  readonly packOffset: number;
  readonly lengthBytes: number;
}

// workers/metadata

/** A range of a blob with compressed metadata; the digest is that of its bytes. */
export type MetadataPart = NonNullable<ChunkedPositions['tarSplit']>;
export type MetadataPartWithDigest = ChunkedPositions['toc'];

/**
 * Reads TOC and tar-split from the store, or fetches, verifies and stores them. Returns the layer
 * as flat rows. First posts the memory it needs, in bytes, to `port`, and receives `null` when that
 * is available, or a Failure if it never will be.
 */
export interface ReadMetadataTask {
  readonly task: 'read-metadata';
  readonly blob: BlobSource;
  readonly location: MetadataLocation;
  /** Whether to write headers for a layer without tar-split. */
  readonly withHeaders?: boolean | undefined;
  readonly port: MessagePort;
}

export interface ReadMetadataResult extends Fetched {
  /** Absent if the blob has no footer, and so is no chunked layer. */
  readonly metadata?: LayerMetadata;
}

/** The metadata of a chunked layer. */
export interface LayerMetadata {
  readonly format: LayerFormat;
  readonly table: LayerTable;
  /** Length of TOC and tar-split in the blob. */
  readonly metadataBytes: number;
  /** As stored until the layer is proven; nothing is stored for eStargz. */
  readonly toc?: { readonly digest: Digest; readonly uncompressedBytes: number };
  readonly tarSplit?: MetadataPartWithDigest;
  /** The last bytes of the tar, which came with the metadata: eStargz has its TOC in the tar. */
  readonly tail?: PackRun;
  /** The last bytes of the data in the blob, if some came with the metadata. */
  readonly lastBytes?: LastBytes;
  /** Only if the task requests them. */
  readonly headers?: WrittenHeaders;
}

/** The headers of a tar with the entries of a TOC, in a pack. */
export interface WrittenHeaders {
  readonly extents: ExtentRows;
  /**
   * Their ranges in that tar, as pairs [start, end). The contents lie between them, in the order of
   * the table's rows.
   */
  readonly ranges: Float64Array;
  readonly tarBytes: number;
}

/** Bytes of a blob from `blobStart` to the end of its data, not decoded and not verified. */
interface LastBytes {
  readonly blobStart: number;
  readonly bytes: Uint8Array<SharedArrayBuffer>;
}

/** Finds which contents of these tables and which pieces of these blobs the store has. */
export interface LookUpTask {
  readonly task: 'look-up';
  readonly tables: readonly LayerTable[];
  readonly blobs: readonly Digest[];
  /** Blobs whose bytes may be reused without decoding. */
  readonly opaqueBlobs: readonly Digest[];
}

export interface LookUpResult {
  readonly packs: readonly PackId[];
  /** One for each of the task's tables. Pack numbers are rows of `packs`. */
  readonly layers: ReadonlyArray<Omit<LayerToPlan, 'table'>>;
  /** One list for each of the task's `opaqueBlobs`, ordered by `blobStart`, without overlaps. */
  readonly opaque: ReadonlyArray<readonly BlobRow[]>;
}

/** A part of a blob that a pack has, not decoded. */
export type BlobRow = Pick<ResumedPiece, 'blobStart' | 'blobEnd' | 'pack' | 'packOffset'>;

// workers/fetch

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

/** Fetches one span, decodes it piece by piece, checks it and appends it to the thread's pack. */
export interface FetchSpanTask extends RangeTask {
  readonly task: 'fetch-span';
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
  readonly reportLocations?: boolean;
}

/** A content, or a chunk of one, with the right digest. */
export interface ContentLocation {
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
  readonly locations?: readonly ContentLocation[];
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

/** Loads what a thread needs to fetch ranges, which it otherwise does before its first one. */
export interface LoadClientTask {
  readonly task: 'load-client';
}

/** The file for the ranges of a blob. */
export interface BlobFile {
  readonly file: OwnFile;
  /** Offset of the blob in the file. */
  readonly position: number;
  /** Records which ranges of the file are complete. */
  readonly journal: OwnFile;
}

/** Fetches a range of a blob and writes it, without decoding, to its offset in a file. */
export interface CopyRangeTask extends RangeTask {
  readonly task: 'copy-range';
  readonly blob: BlobSource;
  readonly start: number;
  readonly end: number;
  /** Left out, the bytes are dropped. */
  readonly into?: BlobFile;
}

export interface CopyRangeResult extends Fetched {
  /** As in `FetchOpaqueResult`. */
  readonly stoppedAt?: number;
  /** As in `FetchOpaqueResult`. */
  readonly sender: number;
  /** Whether the server sent the full blob instead of the range. */
  readonly isFullBlob: boolean;
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

// workers/opaque

/**
 * Fetches a range of a blob and writes it, without decoding, to this thread's pack for the blob.
 */
export interface FetchOpaqueTask extends RangeTask {
  readonly task: 'fetch-opaque';
  readonly blob: BlobSource;
  readonly blobStart: number;
  readonly blobEnd: number;
}

export interface FetchOpaqueResult extends Fetched {
  /** The end of a range that was stopped. */
  readonly stoppedAt?: number;
  readonly pack: PackId;
  readonly packOffset: number;
  /** The endpoint that sent the bytes: its index, of several the lowest, or -1 for none. */
  readonly sender: number;
}

/** Lists the contents of the store that opaque layers may share. */
export interface ListCachedTask {
  readonly task: 'list-cached';
}

/**
 * Decodes an opaque blob into a pack, except for contents that the store has. `port` receives the
 * raw bytes as `ExtentRows` in the order of the blob, then `null`, and sends the decoded bytes as
 * `ExtentRows` in the order of the tar, then `null`.
 */
export interface DecodeBlobTask {
  readonly task: 'decode-blob';
  readonly blob: BlobSource;
  /** Used if the first bytes do not say which. */
  readonly compression: Compression;
  readonly cached: CachedContentRows;
  /** What it may decode to beyond MAX_DECODED_RATIO times its length. */
  readonly room: DecodedRoom;
  /** What earlier attempts at this blob took of `room`. */
  readonly takenBytes: number;
  readonly port: MessagePort;
}

export interface DecodeBlobResult {
  /** Digest of all raw bytes, or null if a pack has lost some. */
  readonly blobDigest: Digest | null;
  /** Length of the decoded bytes, up to the problem if there is one. */
  readonly tarBytes: number;
  /** The pack with the decoded bytes, complete; null if none had to be written. */
  readonly pack: PackId | null;
  /** What the first bytes of the blob say. */
  readonly compression: Compression;
  readonly problem?: StreamFault;
}

/** Why a blob cannot be decoded. */
export interface StreamFault {
  /** `unsupported`: the blob may be valid, but this program or this machine cannot decode it. */
  readonly code: 'metadata-malformed' | 'unsupported';
  /** A clause whose subject is the blob. */
  readonly message: string;
  /** Offset in the blob of the error, or of the block of 1 MiB or the frame with it. */
  readonly blobAt: number;
  /** What the user can do, if it differs from the usual advice. */
  readonly hint?: string;
}

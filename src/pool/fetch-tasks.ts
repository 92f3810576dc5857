import type { MessagePort } from 'node:worker_threads';
import type { OwnFile } from '../files/own-file.js';
import type { Digest } from '../format/digest.js';
import type { Failure } from '../format/error.js';
import type { LayerFormat, MetadataLocation } from '../format/layer-format.js';
import type { LayerTable } from '../format/layer-table.js';
import type { RangeControl } from './range-control.js';
import type { ExtentRows } from './store-tasks.js';

/** Tasks that ask a registry for bytes of a blob. */

/** Where a blob is to be had. */
export interface BlobSource {
  readonly url: string;
  /** Asked for without credentials: it is not the registry that has it. */
  readonly anonymous?: true;
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/** Asks how large a blob is whose descriptor does not say it, and takes no more than a byte of it. */
export interface MeasureBlobTask {
  readonly task: 'measure-blob';
  readonly blob: BlobSource;
}

export interface MeasureBlobResult {
  /** As the registry says; nothing proves it. */
  readonly sizeBytes: number;
  readonly fetchedBytes: number;
  readonly requests: number;
}

/** A position range in a blob and the digest its bytes must have. */
export interface MetadataPart {
  readonly start: number;
  readonly end: number;
  readonly uncompressedBytes: number;
  readonly digest?: Digest;
}

/**
 * Fetches TOC and tar-split (or finds them kept), checks them, keeps them, returns the layer as flat rows. Before that, the memory
 * it takes goes through `port`, in bytes; back comes `null` when there is room, or a Failure when there never will be.
 */
export interface ReadMetadataTask {
  readonly task: 'read-metadata';
  readonly blob: BlobSource;
  readonly place: MetadataLocation;
  /** Whether headers are written for a layer that is read without tar-split. */
  readonly withHeaders?: boolean | undefined;
  readonly port: MessagePort;
}

/** What was asked of a registry and came from it, whatever became of it. */
export interface Fetched {
  readonly fetchedBytes: number;
  readonly requests: number;
  /** Why it is of no use. */
  readonly failure?: Failure;
}

export interface ReadMetadataResult extends Fetched {
  /** Absent when the blob has no footer: it is no chunked layer. */
  readonly metadata?: LayerMetadata;
}

/** What is known of a chunked layer once its metadata is read. */
export interface LayerMetadata {
  readonly format: LayerFormat;
  readonly table: LayerTable;
  /** Of TOC and tar-split in the blob. */
  readonly metadataBytes: number;
  /** As kept, for as long as the layer is not proven; eStargz keeps none. */
  readonly toc?: { readonly digest: Digest; readonly uncompressedBytes: number };
  readonly tarSplit?: MetadataPart & { readonly digest: Digest };
  /** Where the last bytes of the tar were written, which came with the metadata: eStargz has its TOC in the tar. */
  readonly tail?: { readonly pack: string; readonly packOffset: number; readonly lengthBytes: number };
  /** The last bytes of the data in the blob, where some came with the metadata. */
  readonly lastBytes?: LastBytes;
  /** Where the task asks for them. */
  readonly headers?: WrittenHeaders;
}

/** The headers of a tar that has what a TOC states, in a pack. */
export interface WrittenHeaders {
  readonly extents: ExtentRows;
  /** Which parts of that tar they are, as pairs [start, end): between them lie the contents, in the order of the table's rows. */
  readonly ranges: Float64Array;
  readonly tarBytes: number;
}

/** Bytes of a blob from `blobStart` to the end of its data, as they are. Nothing proves them. */
interface LastBytes {
  readonly blobStart: number;
  readonly bytes: Uint8Array<SharedArrayBuffer>;
}

/** A task that fetches one range, which may be stopped. */
interface RangeTask {
  /** Left out, nobody looks how it comes along. */
  readonly control?: RangeControl;
}

/** Fetches one span, decodes it piece by piece, checks it and appends it to the worker's pack. */
export interface FetchSpanTask extends RangeTask {
  readonly task: 'fetch-span';
  /** Position in the pull's order: the earlier span is decoded first. */
  readonly sequence: number;
  readonly blob: BlobSource;
  readonly table: LayerTable;
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
  /** Not asked for again. */
  readonly lastBytes?: LastBytes;
  /** Compressed bytes a piece should have before it is decoded. */
  readonly pieceBytes: number;
  /** Compute the digests of contents, though the DiffID proves the layer. Without tar-split they are computed in any case. */
  readonly checkContents: boolean;
  /** Tell where contents lie, of a layer without tar-split: what the tar offsets of its table do not say. */
  readonly tellPlaces?: boolean;
}

/** A content, or a chunk of one, whose digest came out right. */
export interface ContentPlace {
  /** Of the layer's table. */
  readonly row: number;
  /** Where in the content it begins. */
  readonly start: number;
  readonly lengthBytes: number;
  readonly packOffset: number;
}

export interface FetchSpanResult extends Fetched {
  /** Where the part of the span lies of which nothing is known to be wrong: all of it, unless `wrong` says otherwise. */
  readonly pack: string;
  readonly packOffset: number;
  readonly goodTarBytes: number;
  /** Where the task asks for them; in the order of the tar. */
  readonly places?: readonly ContentPlace[];
  /** Where the span ended that was stopped; what is behind it was not fetched. */
  readonly stopped?: { readonly blobEnd: number; readonly tarEnd: number };
  /** The first thing that is wrong; everything before it stands. */
  readonly wrong?: WrongBytes & {
    /** An endpoint is left that has not sent anything wrong of this blob. */
    readonly elsewhere: boolean;
  };
}

/** Bytes that arrived whole and are not what the metadata promises. */
export interface WrongBytes {
  /** Fetch again from here; a frame begins here. */
  readonly blobStart: number;
  readonly tarStart: number;
  /** Row of the content concerned, or -1: then `problem` says all there is to say. */
  readonly content: number;
  readonly expected?: Digest;
  readonly actual?: Digest;
  readonly problem: string;
}

/** Fetches a range of a blob and writes it, as it is, to the pack that this thread has for raw pieces of the blob. */
export interface FetchOpaqueTask extends RangeTask {
  readonly task: 'fetch-opaque';
  /** Position in the pull's order. */
  readonly sequence: number;
  readonly blob: BlobSource;
  readonly blobStart: number;
  readonly blobEnd: number;
}

export interface FetchOpaqueResult extends Fetched {
  /** Where the range ended that was stopped; what is behind it was not fetched. */
  readonly stoppedAt?: number;
  readonly pack: string;
  readonly packOffset: number;
  /** The endpoint that sent it, by its place in the list, the first of several; -1 for none. */
  readonly sender: number;
}

/** Fetches a range of a blob as it is, straight to its place in a file. */
export interface CopyRangeTask extends RangeTask {
  readonly task: 'copy-range';
  readonly blob: BlobSource;
  readonly start: number;
  readonly end: number;
  readonly file: OwnFile;
  /** Where in the file the blob begins. */
  readonly position: number;
  /** The file that says which ranges of this one are there. */
  readonly journal: OwnFile;
}

export interface CopyRangeResult extends Fetched {
  /** As `FetchOpaqueResult` has it. */
  readonly stoppedAt?: number;
  /** As `FetchOpaqueResult` has it. */
  readonly sender: number;
  /** The whole blob has come instead of the range. */
  readonly isWhole: boolean;
}

export type FetchTask = MeasureBlobTask | ReadMetadataTask | FetchSpanTask | FetchOpaqueTask | CopyRangeTask;

/** The answer to each of them. */
export interface FetchResults {
  'measure-blob': MeasureBlobResult;
  'read-metadata': ReadMetadataResult;
  'fetch-span': FetchSpanResult;
  'fetch-opaque': FetchOpaqueResult;
  'copy-range': CopyRangeResult;
}

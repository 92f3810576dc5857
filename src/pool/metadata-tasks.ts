import type { MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import type { LayerFormat, MetadataLocation } from '../format/layer-format.js';
import type { LayerTable } from '../format/layer-table.js';
import type { ChunkedPositions } from '../format/metadata-position.js';
import type { LayerToPlan, ResumedPiece } from '../plan/layer-parts.js';
import type { BlobSource } from '../registry/range-client.js';
import type { ExtentRows } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { Fetched, PackRun } from './fetch-tasks.js';

/** Tasks of `workers/metadata`. */

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
  readonly place: MetadataLocation;
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
export interface LastBytes {
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

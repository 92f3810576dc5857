import type { MessagePort } from 'node:worker_threads';
import type { OwnFile } from '../files/own-file.js';
import type { Digest } from '../format/digest.js';
import type { Compression } from '../format/layer-format.js';
import type { LayerTable } from '../format/layer-table.js';
import type { DecodedRoom } from './counters.js';
import type { BlobSource, MetadataPart } from './fetch-tasks.js';

/** Tasks on bytes that are here: finding, decoding, checking and rewriting them. */

/** Finds which of these contents and which pieces of these blobs the packs hold. */
export interface LookUpTask {
  readonly task: 'look-up';
  readonly tables: readonly LayerTable[];
  readonly blobs: readonly Digest[];
  /** Blobs of which the bytes as they are would be of use. */
  readonly opaqueBlobs: readonly Digest[];
}

export interface LookUpResult {
  readonly packs: readonly string[];
  readonly layers: readonly LayerHoldings[];
  /** One list for each of the task's `opaqueBlobs`, in the order of `blobStart`; none overlaps another. */
  readonly raw: ReadonlyArray<readonly BlobRow[]>;
}

/** What the store has of one layer, row by row; -1 where it has nothing. Pack numbers index `packs`. */
export interface LayerHoldings {
  readonly cachedPack: Int32Array;
  readonly cachedOffset: Float64Array;
  readonly chunkCachedPack: Int32Array;
  readonly chunkCachedOffset: Float64Array;
  readonly resumed: readonly ResumedRow[];
}

export interface ResumedRow {
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly lengthBytes: number;
  readonly pack: number;
  readonly packOffset: number;
}

/** A part of a blob that a pack has as it is. */
export interface BlobRow {
  readonly blobStart: number;
  readonly blobEnd: number;
  /** Row of `packs`. */
  readonly pack: number;
  readonly packOffset: number;
}

/** Lists the contents of the store that layers which are one stream may share. */
interface ListCachedTask {
  readonly task: 'list-cached';
}

/** Contents that packs have, found as `CachedContents` does it; empty when there are none. */
export interface CachedRows {
  readonly packs: readonly string[];
  readonly slots: Uint32Array<SharedArrayBuffer>;
}

/**
 * Decodes a blob that is one stream into a pack of its own, but for contents that are held. Through `port` come its raw bytes
 * as `ExtentRows` in the order of the blob, then `null`; back go the decoded bytes as `ExtentRows` in the order of the tar,
 * then `null`.
 */
export interface DecodeBlobTask {
  readonly task: 'decode-blob';
  readonly blob: BlobSource;
  /** What it is if its first bytes do not tell. */
  readonly compression: Compression;
  readonly held: CachedRows;
  /** What it may decode to beyond MAX_DECODED_RATIO times its length, and what it took of that when it was decoded before. */
  readonly room: DecodedRoom;
  readonly takenBytes: number;
  readonly port: MessagePort;
}

export interface DecodeBlobResult {
  /** Of all raw bytes; null when a pack does not have them any more. */
  readonly blobDigest: Digest | null;
  /** What was decoded, up to the problem if there is one. */
  readonly tarBytes: number;
  /** Null when nothing had to be written. Nobody writes to it any more. */
  readonly pack: string | null;
  /** What the blob turned out to be, by its first bytes. */
  readonly compression: Compression;
  readonly problem?: StreamFault;
}

/**
 * Why a blob cannot be decoded: a clause whose subject is the blob, and where in the blob: there, or in the block of 1 MiB or
 * the frame that begins there.
 */
export interface StreamFault {
  /** `unsupported`: the blob may be as it should be, and takes more than this program or this machine has. */
  readonly code: 'metadata-malformed' | 'unsupported';
  readonly message: string;
  readonly blobAt: number;
  /** What the user can do about it, where that is not what there is to do about others. */
  readonly hint?: string;
}

/** Appends tar-split bytes, in order and without a break, to the worker's pack. */
export interface WriteInlineTask {
  readonly task: 'write-inline';
  readonly blob: BlobSource;
  readonly tarSplit: MetadataPart & { readonly digest: Digest };
  /** Pairs [start, end) of tar positions, ascending. */
  readonly ranges: Float64Array;
}

export interface WriteInlineResult {
  readonly pack: string;
  readonly packOffset: number;
  readonly lengthBytes: number;
}

/** Extents in tar order with their pack names once: how extents travel. */
export interface ExtentRows {
  readonly packs: readonly string[];
  readonly count: number;
  /** Row of `packs`. */
  readonly pack: Uint32Array;
  readonly offset: Float64Array;
  /** Where the extent begins; one more than `count`: the last is the length of all. */
  readonly start: Float64Array;
}

/**
 * Hashes a layer's extents, which come through `port` in tar order until `null`. Some writers drop the zeros behind the
 * end of an archive: when `diffId` is the digest of the extents with them, they are written to the worker's pack.
 */
export interface VerifyLayerTask {
  readonly task: 'verify-layer';
  readonly diffId: Digest;
  readonly port: MessagePort;
  /** Where the tags of the blocks that are hashed go, for an export that reads the layer meanwhile or afterwards. */
  readonly tags?: BlockTagRows;
}

export interface VerifyLayerResult {
  /** With the padding, if there is any. Null when a pack does not have all bytes any more. */
  readonly digest: Digest | null;
  /** With tags: whether they are those of the very bytes that were hashed, all of them. */
  readonly isTagged: boolean;
  /** What must follow the extents for the digest to be true. */
  readonly padding?: { readonly pack: string; readonly packOffset: number; readonly lengthBytes: number };
}

/**
 * Compares the extents of a whole layer with its metadata: which contents and which tar-split ranges are false. Of what
 * is false, pieces that fail their own record are marked as bad in their packs. Without tar-split nobody can tell what is
 * false, and pieces that fail their own record are all that is found.
 */
export interface FindDamageTask {
  readonly task: 'find-damage';
  readonly table: LayerTable;
  readonly blob: BlobSource;
  readonly tarSplit?: MetadataPart & { readonly digest: Digest };
  readonly extents: ExtentRows;
}

export interface FindDamageResult {
  /** Rows of contents whose bytes do not have their digest, in order. */
  readonly contents: readonly number[];
  /** Rows of the chunks of these contents that do not have theirs, in order. A content without any is false as a whole. */
  readonly chunks: readonly number[];
  /** Pairs [start, end) of tar positions that differ from tar-split. */
  readonly raw: Float64Array;
}

/** Hashes the extents of a layer record; if they are not its DiffID, finds what is false and marks it in its packs. */
export interface CheckLayerTask {
  readonly task: 'check-layer';
  readonly diffId: Digest;
  readonly extents: ExtentRows;
  /** What other threads read of the layer is compared with what is hashed. */
  readonly tags?: BlockTagRows;
}

/** Tags of a layer's blocks: `src/export/block-tags.ts` makes and compares them. */
export interface BlockTagRows {
  readonly key: Uint8Array;
  /** One a block, 0 for a block that nobody has read yet. */
  readonly tags: BigInt64Array<SharedArrayBuffer>;
  /** What was read of blocks in part, of all layers: `src/export/block-tags.ts` writes and reads it. */
  readonly records: Uint32Array<SharedArrayBuffer>;
  /** Where in `records` a block has its own, 0 for a block of which no part was read. */
  readonly recordOf: Uint32Array<SharedArrayBuffer>;
}

export interface CheckLayerResult {
  /** Whether the extents are the layer's tar. */
  readonly whole: boolean;
  /** Whether another thread read other bytes than those that were hashed. */
  readonly changed: boolean;
  /** Names of the tar's entries with false bytes, in order, as far as there is a name. */
  readonly falsePaths: readonly string[];
}

/** Copies runs of packs, pairs [start, end) each, with what their indexes know of them, into one new pack. */
export interface CopyRunsTask {
  readonly task: 'copy-runs';
  readonly sources: readonly { readonly pack: string; readonly runs: Float64Array }[];
}

export interface CopyRunsResult {
  readonly pack: string;
  /** Where the runs of each source begin in the new pack. */
  readonly starts: readonly Float64Array[];
}

/** Hashes a part of a file as it grows: through `port` come the positions up to which it is there, then `null`. */
export interface HashFileTask {
  readonly task: 'hash-file';
  readonly path: string;
  /** The same file, where this process made it. */
  readonly file?: OwnFile;
  readonly position: number;
  readonly port: MessagePort;
}

export interface HashFileResult {
  readonly digest: Digest;
}

/** The path of a content, for an error message. */
export interface NameContentTask {
  readonly task: 'name-content';
  readonly toc: Digest;
  readonly tocUncompressedBytes: number;
  readonly content: number;
}

export type StoreTask =
  | LookUpTask
  | ListCachedTask
  | DecodeBlobTask
  | WriteInlineTask
  | VerifyLayerTask
  | FindDamageTask
  | CheckLayerTask
  | CopyRunsTask
  | HashFileTask
  | NameContentTask;

/** The answer to each of them. */
export interface StoreResults {
  'look-up': LookUpResult;
  'list-cached': CachedRows;
  'decode-blob': DecodeBlobResult;
  'write-inline': WriteInlineResult;
  'verify-layer': VerifyLayerResult;
  'find-damage': FindDamageResult;
  'check-layer': CheckLayerResult;
  'copy-runs': CopyRunsResult;
  'hash-file': HashFileResult;
  'name-content': string;
}

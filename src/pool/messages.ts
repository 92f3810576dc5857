import type { MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import type { Failure } from '../format/error.js';
import type { LayerFormat, MetadataPlace } from '../format/layer-format.js';
import type { LayerTable } from '../format/layer-table.js';
import type { RateLimit } from './rate-limit.js';

/**
 * Every message between threads. Tasks go to a pool and come back as an `Outcome`; events come from a running
 * task at any time, even after its outcome: they are advice, totals come from results. An Error loses its class
 * and code on the way, so failures are data.
 */

/** How long whoever had a miss waits before it asks again, in milliseconds; the main thread may end it sooner. */
export const RETRY_WAIT_MS = 1000;

/** What a worker needs to know once: handed over as the pool's workerData. */
export interface WorkerSetup {
  readonly storeRoot: string;
  readonly counters: Uint32Array<SharedArrayBuffer>;
  /** What all threads together may receive. */
  readonly rateLimit?: RateLimit;
  /** For pools whose tasks ask a registry. */
  readonly network?: NetworkSetup;
  /** For pools that export: the layers of the image, lowest first. */
  readonly layers?: readonly ExtentRows[];
}

export interface NetworkSetup {
  /** Name of the BroadcastChannel on which the main thread answers. */
  readonly channel: string;
  /** Range requests in flight in one thread, which its HTTP connections are too. */
  readonly connections: number;
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** Where blobs are asked for, in this order; the first is where their URLs lead. */
  readonly endpoints: readonly EndpointSetup[];
  /** How a foreign blob is asked for where it lies. */
  readonly elsewhere: Pick<TransportSetup, 'tlsVerify' | 'environment'>;
  /** Which endpoints lack which blobs; all threads add to it. */
  readonly lacking: Uint32Array<SharedArrayBuffer>;
  /** How much each endpoint is asked, and what all waits together took; all threads add to them. */
  readonly limits: BigInt64Array<SharedArrayBuffer>;
  readonly waits: BigInt64Array<SharedArrayBuffer>;
  readonly userAgent: string;
  /** Whether each request is to be told of. */
  readonly debug: boolean;
  /**
   * Value of the Authorization header at the first endpoint, when it asked for one, and from when on (Unix time) it is
   * to be renewed before it is used.
   */
  readonly authorization?: { readonly value: string; readonly expiresAtMs: number };
}

/** One place that has the image's blobs. */
interface EndpointSetup {
  readonly transport: TransportSetup;
  readonly repository: string;
}

/** How a registry's servers are reached. */
interface TransportSetup {
  readonly tlsVerify: boolean;
  /** `host[:port]` as references have it. */
  readonly host: string;
  readonly certDir?: string;
  /** The variables of the environment that concern the network, those with a proxy's password included. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Where a blob is to be had. */
export interface BlobSource {
  readonly url: string;
  /** Asked for without credentials: it is not the registry that has it. */
  readonly anonymous?: true;
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/** A position range in a blob and the digest its bytes must have. */
export interface MetadataPart {
  readonly start: number;
  readonly end: number;
  readonly rawBytes: number;
  readonly digest?: Digest;
}

/** Fetches TOC and tar-split (or finds them kept), checks them, keeps them, returns the layer as flat rows. */
export interface ReadMetadataTask {
  readonly task: 'read-metadata';
  readonly blob: BlobSource;
  readonly place: MetadataPlace;
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
  readonly toc?: { readonly digest: Digest; readonly rawBytes: number };
  readonly tarSplit?: MetadataPart & { readonly digest: Digest };
  /** Where the last bytes of the tar were written, which came with the metadata: eStargz has its TOC in the tar. */
  readonly tail?: { readonly pack: string; readonly packOffset: number; readonly lengthBytes: number };
}

/** Finds which of these contents and which pieces of these blobs the packs hold. */
export interface LookUpTask {
  readonly task: 'look-up';
  readonly tables: readonly LayerTable[];
  readonly blobs: readonly Digest[];
  /** Blobs of which the bytes as they are would be of use. */
  readonly rawBlobs: readonly Digest[];
}

export interface LookUpResult {
  readonly packs: readonly string[];
  readonly layers: readonly LayerHoldings[];
  /** One list for each of the task's `rawBlobs`, in the order of `blobStart`; none overlaps another. */
  readonly raw: ReadonlyArray<readonly RawRow[]>;
}

/** What the store has of one layer, row by row; -1 where it has nothing. Pack numbers index `packs`. */
export interface LayerHoldings {
  readonly heldPack: Int32Array;
  readonly heldOffset: Float64Array;
  readonly chunkHeldPack: Int32Array;
  readonly chunkHeldOffset: Float64Array;
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
export interface RawRow {
  readonly blobStart: number;
  readonly blobEnd: number;
  /** Row of `packs`. */
  readonly pack: number;
  readonly packOffset: number;
}

/** Fetches one span, decodes it piece by piece, checks every content and appends it to the worker's pack. */
export interface FetchSpanTask {
  readonly task: 'fetch-span';
  /** Position in the pull's order: the earlier span is decoded first. */
  readonly sequence: number;
  readonly blob: BlobSource;
  readonly table: LayerTable;
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly tarStart: number;
  readonly tarEnd: number;
  /** Compressed bytes a piece should have before it is decoded. */
  readonly pieceBytes: number;
}

export interface FetchSpanResult extends Fetched {
  /** Where the part of the span that proved right lies: all of it, unless `wrong` says otherwise. */
  readonly pack: string;
  readonly packOffset: number;
  readonly goodTarBytes: number;
  /** The first thing that did not prove right; everything before it stands. */
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
export interface FetchRawTask {
  readonly task: 'fetch-raw';
  /** Position in the pull's order. */
  readonly sequence: number;
  readonly blob: BlobSource;
  readonly blobStart: number;
  readonly blobEnd: number;
}

export interface FetchRawResult extends Fetched {
  readonly pack: string;
  readonly packOffset: number;
  /** The endpoint that sent it, by its place in the list, the first of several; -1 for none. */
  readonly sender: number;
}

/** How the tar in a layer that is one stream is compressed. */
export type StreamCompression = 'gzip' | 'zstd' | 'tar';

/**
 * Decodes a blob that is one stream into a pack of its own. Through `port` come its raw bytes as `ExtentRows` in the order
 * of the blob, then `null`; back go the decoded bytes as `ExtentRows` in the order of the tar, then `null`.
 */
export interface DecodeBlobTask {
  readonly task: 'decode-blob';
  readonly blob: BlobSource;
  readonly compression: StreamCompression;
  readonly port: MessagePort;
}

export interface DecodeBlobResult {
  /** Of all raw bytes; null when a pack does not have them any more. */
  readonly blobDigest: Digest | null;
  /** What was decoded and written, up to the problem if there is one. */
  readonly tarBytes: number;
  /** Null when nothing was decoded. Nobody writes to it any more. */
  readonly pack: string | null;
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
}

export interface VerifyLayerResult {
  /** With the padding, if there is any. Null when a pack does not have all bytes any more. */
  readonly digest: Digest | null;
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
  /** Rows of contents whose bytes do not have their digest. */
  readonly contents: readonly number[];
  /** Pairs [start, end) of tar positions that differ from tar-split. */
  readonly raw: Float64Array;
}

/** Hashes the extents of a layer record; if they are not its DiffID, finds what is false and marks it in its packs. */
export interface CheckLayerTask {
  readonly task: 'check-layer';
  readonly diffId: Digest;
  readonly extents: ExtentRows;
}

export interface CheckLayerResult {
  /** Whether the extents are the layer's tar. */
  readonly whole: boolean;
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

/** Writes a layer's tar to a file and hashes it on the way. */
export interface ExportLayerTask {
  readonly task: 'export-layer';
  readonly extents: ExtentRows;
  readonly path: string;
  /** Where in a file that is there already; without it the file is a new one. */
  readonly position?: number;
}

export interface ExportLayerResult {
  readonly digest: Digest;
}

/** Reads the headers of the pool's layers and tells what file system they make. */
interface FlattenTask {
  readonly task: 'flatten';
}

/** A flattened file system as rows: `src/export/file-tree.ts` reads them. */
export interface TreeRows {
  readonly count: number;
  /** The tar type flag as a byte: `0` file, `1` hard link, `2` symlink, `3` and `4` devices, `5` directory, `6` fifo. */
  readonly type: Uint8Array<SharedArrayBuffer>;
  /** Which layer the content is in, and where in its tar. */
  readonly layer: Uint16Array<SharedArrayBuffer>;
  readonly contentStart: Float64Array<SharedArrayBuffer>;
  readonly sizeBytes: Float64Array<SharedArrayBuffer>;
  readonly mode: Uint16Array<SharedArrayBuffer>;
  readonly uid: Uint32Array<SharedArrayBuffer>;
  readonly gid: Uint32Array<SharedArrayBuffer>;
  readonly mtimeSeconds: Float64Array<SharedArrayBuffer>;
  readonly mtimeNanos: Uint32Array<SharedArrayBuffer>;
  readonly devMajor: Uint32Array<SharedArrayBuffer>;
  readonly devMinor: Uint32Array<SharedArrayBuffer>;
  /** Of a hard link: the row of the file that it is another name of. */
  readonly target: Uint32Array<SharedArrayBuffer>;
  /** Where in `text` the path, the symlink's target and the pax records of extended attributes end, three a row. */
  readonly textEnd: Float64Array<SharedArrayBuffer>;
  readonly text: Uint8Array<SharedArrayBuffer>;
}

/** Writes a file system as one tar, to a file or, without a path, to the standard output. */
export interface WriteTarTask {
  readonly task: 'write-tar';
  readonly tree: TreeRows;
  readonly path?: string;
}

export interface WriteTarResult {
  /** Nobody reads the standard output any more. */
  readonly closed: boolean;
}

/** Fetches a range of a blob as it is, straight to its place in a file. */
export interface CopyRangeTask {
  readonly task: 'copy-range';
  readonly blob: BlobSource;
  readonly start: number;
  readonly end: number;
  readonly path: string;
  /** Where in the file the blob begins. */
  readonly position: number;
}

export interface CopyRangeResult {
  /** As `FetchRawResult` has it. */
  readonly sender: number;
  readonly fetchedBytes: number;
  readonly requests: number;
}

/** Hashes a part of a file as it grows: through `port` come the positions up to which it is there, then `null`. */
export interface HashFileTask {
  readonly task: 'hash-file';
  readonly path: string;
  readonly position: number;
  readonly port: MessagePort;
}

export interface HashFileResult {
  readonly digest: Digest;
}

/** What the user of this process can make of a file system. */
export interface Abilities {
  /** Whose process it is. */
  readonly uid: number;
  /** The bits that new files do not get. */
  readonly umask: number;
  /** Whether files can be given to others, and devices made. */
  readonly owners: boolean;
  /** Whether there is GNU tar to make what Node has no call for. */
  readonly tar: boolean;
}

/** Part of writing a file system into a directory. */
interface WriteTreeTask {
  readonly tree: TreeRows;
  readonly directory: string;
  readonly abilities: Abilities;
  /** Whether what is there under a name that the tree has goes. */
  readonly replace: boolean;
}

/** Makes all directories, for this user alone until `finish-files`. */
export interface MakeDirectoriesTask extends WriteTreeTask {
  readonly task: 'make-directories';
}

/** Writes the files and symbolic links of these rows, except those that need tar. */
export interface WriteFilesTask extends WriteTreeTask {
  readonly task: 'write-files';
  readonly rows: Uint32Array;
}

/** Has GNU tar make what Node cannot. */
export interface WriteSpecialsTask extends WriteTreeTask {
  readonly task: 'write-specials';
}

export interface WriteSpecialsResult {
  /** What tar could not do, in its words. */
  readonly warnings: readonly string[];
}

/** When all else is there: hard links, then the modes, owners and times of directories. */
export interface FinishFilesTask extends WriteTreeTask {
  readonly task: 'finish-files';
}

/** The path of a content, for an error message. */
export interface NameContentTask {
  readonly task: 'name-content';
  readonly toc: Digest;
  readonly tocRawBytes: number;
  readonly content: number;
}

/** The answer to each task. */
export interface Results {
  'read-metadata': ReadMetadataResult;
  'look-up': LookUpResult;
  'fetch-span': FetchSpanResult;
  'fetch-raw': FetchRawResult;
  'decode-blob': DecodeBlobResult;
  'write-inline': WriteInlineResult;
  'verify-layer': VerifyLayerResult;
  'find-damage': FindDamageResult;
  'check-layer': CheckLayerResult;
  'copy-runs': CopyRunsResult;
  'export-layer': ExportLayerResult;
  'copy-range': CopyRangeResult;
  'hash-file': HashFileResult;
  flatten: TreeRows;
  'write-tar': WriteTarResult;
  'make-directories': undefined;
  'write-files': undefined;
  'write-specials': WriteSpecialsResult;
  'finish-files': undefined;
  'name-content': string;
}

export type Task =
  | ReadMetadataTask
  | LookUpTask
  | FetchSpanTask
  | FetchRawTask
  | DecodeBlobTask
  | WriteInlineTask
  | VerifyLayerTask
  | FindDamageTask
  | CheckLayerTask
  | CopyRunsTask
  | ExportLayerTask
  | CopyRangeTask
  | HashFileTask
  | FlattenTask
  | WriteTarTask
  | MakeDirectoriesTask
  | WriteFilesTask
  | WriteSpecialsTask
  | FinishFilesTask
  | NameContentTask;

export type Outcome<Result> =
  | { readonly ok: true; readonly value: Result }
  | { readonly ok: false; readonly failure: Failure };

/** From a worker while a task runs. */
export type WorkerEvent =
  | { readonly event: 'miss'; readonly message: string }
  /** One more, or one less, request loop is asking: a wait that the server asked for is not asking. */
  | { readonly event: 'asking'; readonly change: 1 | -1 }
  /** A server told a request to wait. */
  | { readonly event: 'throttled'; readonly host: string; readonly waitMs: number }
  | { readonly event: 'authorization'; readonly endpoint: number; readonly stale: string }
  /** A signed URL that a blob's URL led to is refused; asked of the main thread by one of the workers' threads. */
  | {
      readonly event: 'target-expired';
      readonly blobUrl: string;
      readonly target: string;
      readonly thread: number;
    }
  /** The thread that had leave to ask the registry has found a new one, or none. */
  | { readonly event: 'target-renewed'; readonly blobUrl: string; readonly target: string | undefined }
  /** Where a blob's URL led is broken. */
  | { readonly event: 'target-failed'; readonly blobUrl: string; readonly target: string }
  | { readonly event: 'request'; readonly line: string };

/** From the main thread to all workers, on the BroadcastChannel: the answers to `authorization` and `target-expired`. */
export type MainMessage =
  | {
      readonly message: 'authorization';
      readonly endpoint: number;
      readonly stale: string;
      readonly value: string | undefined;
      readonly expiresAtMs: number;
      /** `http://…` or `https://…`, as asking the endpoint showed. */
      readonly origin: string;
    }
  | {
      readonly message: 'authorization-failed';
      readonly endpoint: number;
      readonly stale: string;
      readonly failure: Failure;
    }
  /** A thread has leave to ask the registry where a blob is. */
  | { readonly message: 'renew-target'; readonly blobUrl: string; readonly thread: number }
  /** Where a blob is now; undefined when asking was in vain. Left out, `thread` is all. */
  | {
      readonly message: 'target';
      readonly blobUrl: string;
      readonly target: string | undefined;
      readonly thread?: number;
    };

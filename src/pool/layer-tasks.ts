import type { MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import type { LayerTable } from '../format/layer-table.js';
import type { BlobSource } from '../registry/range-client.js';
import type { ExtentRows } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { MetadataPartWithDigest, PackRun } from './pull-tasks.js';

/** Tasks that read layers of the store: of `workers/check`, and those of `workers/export` that write tars and archives. */

/** Tags of a layer's blocks: `src/export/block-tags.ts` computes and compares them. */
export interface BlockTagRows {
  readonly key: Uint8Array;
  /** One for each block, 0 for a block that was not read yet. */
  readonly tags: BigInt64Array<SharedArrayBuffer>;
  /** Tags of parts of blocks, of all layers: `src/export/block-tags.ts` writes and reads them. */
  readonly records: Uint32Array<SharedArrayBuffer>;
  /** Row of `records` for each block, 0 for a block of which no part was read. */
  readonly recordOf: Uint32Array<SharedArrayBuffer>;
}

/**
 * Hashes a layer's extents, which `port` receives in tar order until `null`. Some writers drop the
 * zeros at the end of an archive: if `diffId` is the digest with them, they are written to the
 * thread's pack.
 */
export interface VerifyLayerTask {
  readonly task: 'verify-layer';
  readonly diffId: Digest;
  readonly port: MessagePort;
  /** Receives the tags of the hashed blocks, for an export that reads the layer too. */
  readonly tags?: BlockTagRows;
}

export interface VerifyLayerResult {
  /** With the padding, if there is any. Null if a pack has lost some of the bytes. */
  readonly digest: Digest | null;
  /** With tags: whether they are complete, and those of the bytes that were hashed. */
  readonly isTagged: boolean;
  /** Must follow the extents for `digest` to hold. */
  readonly padding?: PackRun;
}

/**
 * Compares the extents of a complete layer with its metadata, and finds wrong contents and
 * tar-split ranges. Of these, marks pieces that differ from their own index record as bad in their
 * packs. Without tar-split, only such pieces are found.
 */
export interface FindDamageTask {
  readonly task: 'find-damage';
  readonly table: LayerTable;
  readonly blob: BlobSource;
  readonly tarSplit?: MetadataPartWithDigest;
  readonly extents: ExtentRows;
}

export interface FindDamageResult {
  /** Rows of contents with a wrong digest, in order. */
  readonly contents: readonly number[];
  /**
   * Rows of their chunks with a wrong digest, in order. A content without any is wrong as a whole.
   */
  readonly chunks: readonly number[];
  /** Ranges that differ from tar-split: pairs [start, end) of tar offsets. */
  readonly tarRanges: Float64Array;
}

/**
 * Hashes the extents of a layer record. If they do not match its DiffID, finds and marks the wrong
 * pieces.
 */
export interface CheckLayerTask {
  readonly task: 'check-layer';
  readonly diffId: Digest;
  readonly extents: ExtentRows;
  /** Compared with the tags of what is hashed. */
  readonly tags?: BlockTagRows;
}

export interface CheckLayerResult {
  /** Whether the extents have the DiffID. */
  readonly isIntact: boolean;
  /** Whether another thread read other bytes than those that were hashed. */
  readonly changed: boolean;
  /** Names of the tar's entries with wrong bytes, in order, if they have a name. */
  readonly falsePaths: readonly string[];
}

/** Copies runs of packs, pairs [start, end) each, with their index records, into one new pack. */
export interface CopyRunsTask {
  readonly task: 'copy-runs';
  readonly sources: readonly { readonly pack: PackId; readonly runs: Float64Array }[];
}

export interface CopyRunsResult {
  readonly pack: PackId;
  /** Offsets in the new pack of the runs of each source. */
  readonly starts: readonly Float64Array[];
}

/** A layer that several threads read. */
export interface ExportedLayer {
  readonly diffId: Digest;
  readonly extents: ExtentRows;
  readonly tags: BlockTagRows;
}

/** A file that the main thread has opened for writing, and closes. */
export interface OpenFile {
  readonly fd: number;
  /** For messages. */
  readonly path: string;
}

/** Writes a layer's tar to a file and hashes it. */
export interface ExportLayerTask {
  readonly task: 'export-layer';
  readonly extents: ExtentRows;
  readonly file: OpenFile;
  /** Offset of the tar in the file. */
  readonly position: number;
}

export interface ExportLayerResult {
  readonly digest: Digest;
}

/** A layer as a member of an archive. */
export interface ArchiveLayer {
  readonly diffId: Digest;
  readonly extents: ExtentRows;
  readonly tarBytes: number;
  /** Its tar header. */
  readonly header: Uint8Array;
}

/**
 * Writes an archive of layers, each of which is hashed, followed by documents, to the standard
 * output.
 */
export interface WriteArchiveTask {
  readonly task: 'write-archive';
  readonly layers: readonly ArchiveLayer[];
  readonly documents: ReadonlyArray<{ readonly header: Uint8Array; readonly bytes: Uint8Array }>;
}

export interface WriteArchiveResult {
  /** Whether the reader of the standard output has closed it. */
  readonly closed: boolean;
  /** Row of the layer that does not have its DiffID; the archive ends with it. */
  readonly damaged?: number;
}

/** Reads the headers of the pool's layers and returns their file system. */
export interface FlattenTask {
  readonly task: 'flatten';
  /** Whether it will be written as files: then Linux must allow its names and links. */
  readonly intoFiles: boolean;
  /** Limits the file system to this file or directory. */
  readonly path?: string | undefined;
  /** As in `WriteFilesTask`. */
  readonly layers?: readonly ExportedLayer[];
}

/** A flattened file system as rows: `src/export/file-tree.ts` reads them. */
export interface TreeRows {
  readonly count: number;
  /**
   * The tar type flag as a byte: `0` file, `1` hard link, `2` symlink, `3` and `4` devices, `5`
   * directory, `6` fifo.
   */
  readonly type: Uint8Array<SharedArrayBuffer>;
  /** The layer with the content. */
  readonly layer: Uint16Array<SharedArrayBuffer>;
  /** Offset of the content in the layer's tar. */
  readonly contentStart: Float64Array<SharedArrayBuffer>;
  /** Length of the content; for a sparse file, without its holes. */
  readonly sizeBytes: Float64Array<SharedArrayBuffer>;
  readonly sparse: SparseRows;
  readonly mode: Uint16Array<SharedArrayBuffer>;
  /** An ID of 2^32 - 1 leaves the owner as it is. */
  readonly uid: Uint32Array<SharedArrayBuffer>;
  readonly gid: Uint32Array<SharedArrayBuffer>;
  readonly mtimeSeconds: Float64Array<SharedArrayBuffer>;
  readonly mtimeNanos: Uint32Array<SharedArrayBuffer>;
  readonly devMajor: Uint32Array<SharedArrayBuffer>;
  readonly devMinor: Uint32Array<SharedArrayBuffer>;
  /** For a hard link, the row of its file. */
  readonly target: Uint32Array<SharedArrayBuffer>;
  /** The row of its directory; `NO_ROW` for the root, which may be absent. */
  readonly parent: Int32Array<SharedArrayBuffer>;
  /**
   * Where in `text` the path, the symlink's target and the pax records of extended attributes end:
   * three for each row.
   */
  readonly textEnd: Float64Array<SharedArrayBuffer>;
  readonly text: Uint8Array<SharedArrayBuffer>;
}

/** The sparse files among the rows of a tree. */
interface SparseRows {
  /** Their rows, ascending. */
  readonly rows: Uint32Array<SharedArrayBuffer>;
  /** The length of each file. */
  readonly fileBytes: Float64Array<SharedArrayBuffer>;
  /** Where the bounds of each end in `bounds`. */
  readonly boundsEnd: Uint32Array<SharedArrayBuffer>;
  /** Start and end in the file of each run of bytes in its content. */
  readonly bounds: Float64Array<SharedArrayBuffer>;
}

/** Takes blocks, as ArrayBuffers, to the main thread. It answers each with a message. */
export interface StreamPort {
  readonly port: MessagePort;
}

/** Sends a layer's tar to the main thread. */
export interface StreamLayerTask {
  readonly task: 'stream-layer';
  readonly extents: ExtentRows;
  readonly to: StreamPort;
}

/** A device or a pipe. */
export interface SpecialFile {
  /** For messages. */
  readonly path: string;
  /** The path for system calls. */
  readonly at: string;
  /** Whether to follow a symlink at that path: only where no other user can have made one. */
  readonly follows: boolean;
}

/**
 * Writes a file system as one tar to a file, a device, a pipe or the main thread; without `to`, to
 * the standard output.
 */
export interface WriteTarTask {
  readonly task: 'write-tar';
  readonly tree: TreeRows;
  readonly to: OpenFile | SpecialFile | StreamPort | undefined;
}

export interface WriteTarResult {
  /** Whether the reader of the standard output has closed it. */
  readonly closed: boolean;
}

/** A layer of which the store has at least the headers. */
export interface PartialLayer {
  readonly diffId: Digest;
  /** Length of its tar. */
  readonly tarBytes: number;
  /** The parts of its tar that the store has, in order. */
  readonly extents: ExtentRows;
  /** The ranges of the tar that they are, as pairs [start, end); left out, they are all of it. */
  readonly ranges?: Float64Array;
}

/**
 * Reads the headers of some layers, lowest first, and finds the layer that hides a path in those
 * below it.
 */
export interface FindCoverTask {
  readonly task: 'find-cover';
  readonly layers: readonly PartialLayer[];
  /** The names in the path, one character for each byte. */
  readonly names: readonly string[];
}

export interface FindCoverResult {
  /** The highest layer that hides everything below it, or -1 if none does. */
  readonly cover: number;
  /**
   * Whether the effect of these layers does not depend on those below. If it does, no lower layer
   * can hide anything.
   */
  readonly isClear: boolean;
}

/** Reads the headers of an image's layers, lowest first, and returns the file system at a path. */
export interface PickTreeTask {
  readonly task: 'pick-tree';
  readonly layers: readonly PartialLayer[];
  readonly path: string;
  /** Whether a directory becomes the root of the result, or else keeps its name. */
  readonly asRoot: boolean;
}

/**
 * Writes the tar of a file system to a pack, without the contents, which are in packs already, and
 * hashes all of it.
 */
export interface WritePickedTask {
  readonly task: 'write-picked';
  readonly tree: TreeRows;
  /** The contents of all files, in the order of their rows. */
  readonly contents: ExtentRows;
}

export interface WritePickedResult {
  readonly digest: Digest;
  readonly extents: ExtentRows;
  /** The packs that it wrote to. */
  readonly packs: readonly PackId[];
}

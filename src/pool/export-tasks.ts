import type { MessagePort } from 'node:worker_threads';
import type { SharedDirectory } from '../files/open-directory.js';
import type { Digest } from '../format/digest.js';
import type { BlockTagRows, ExtentRows } from './store-tasks.js';
import type { ExportedLayer } from './thread-setup.js';

/** Tasks that write what is in the store somewhere else. */

/** A file that the main thread has opened for writing, and closes. */
export interface OpenFile {
  readonly fd: number;
  /** What messages call it. */
  readonly path: string;
}

/** Writes a layer's tar to a file and hashes it on the way. */
export interface ExportLayerTask {
  readonly task: 'export-layer';
  readonly extents: ExtentRows;
  readonly file: OpenFile;
  /** Where in the file it begins. */
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
  /** What stands before it. */
  readonly header: Uint8Array;
}

/** Writes an archive of layers, each hashed on the way, to the standard output, and documents behind them. */
export interface WriteArchiveTask {
  readonly task: 'write-archive';
  readonly layers: readonly ArchiveLayer[];
  readonly documents: ReadonlyArray<{ readonly header: Uint8Array; readonly bytes: Uint8Array }>;
}

export interface WriteArchiveResult {
  /** The standard output has no reader any more. */
  readonly closed: boolean;
  /** Row of the layer that did not hash to its DiffID, with which the archive breaks off. */
  readonly damaged?: number;
}

/** Reads the headers of the pool's layers and tells what file system they make. */
export interface FlattenTask {
  readonly task: 'flatten';
  /** Whether the file system becomes files: then its names and links must be such that Linux takes. */
  readonly intoFiles: boolean;
  /** Only the file or directory at this path is wanted; everything when left out. */
  readonly path?: string | undefined;
  /** As in `WriteFilesTask`. */
  readonly layers?: readonly ExportedLayer[];
}

/** The sparse files among the rows of a tree, all others are whole. */
interface SparseRows {
  /** Which rows, ascending. */
  readonly rows: Uint32Array<SharedArrayBuffer>;
  /** How long each file is. */
  readonly fileBytes: Float64Array<SharedArrayBuffer>;
  /** Where the bounds of each end in `bounds`. */
  readonly boundsEnd: Uint32Array<SharedArrayBuffer>;
  /** Start and end in the file of each run of bytes that its content has. */
  readonly bounds: Float64Array<SharedArrayBuffer>;
}

/**
 * The same for layers that are still coming. Through `port` come `IncomingBytes`; back go the files as their headers are read, as
 * `FileBatch`, and then `null`. Whether the image has them in the end is not known by then. The answer is null when there are more
 * entries than that, or they make no file system.
 */
export interface FollowLayersTask {
  readonly task: 'follow-layers';
  /** Each layer once. */
  readonly diffIds: readonly Digest[];
  /** The rows of `diffIds` that the image's layers have, lowest first. */
  readonly order: readonly number[];
  readonly port: MessagePort;
  readonly maxEntries: number;
  /** Changed and notified after each message: the thread waits for that alone. */
  readonly sent: Int32Array<SharedArrayBuffer>;
}

/** A layer that several threads read, and the tags that they leave. */
interface TaggedDiffId {
  readonly diffId: Digest;
  readonly tags: BlockTagRows;
}

/** The next bytes of a layer's tar, which are on disk; without bytes it has no more. */
export interface IncomingBytes {
  /** Row of the task's `diffIds`. */
  readonly layer: number;
  readonly bytes?: { readonly tags: BlockTagRows; readonly extents: ExtentRows };
}

/** Files of one layer, in the order of its tar. */
export interface FileBatch {
  /** Row of the task's `diffIds`. */
  readonly layer: number;
  /** Rows without parents: their paths are those in the layer, with no `.` or `..` in them. */
  readonly tree: TreeRows;
  /** Blocks of which headers were read, ascending: they are still to be compared as a whole. */
  readonly blocks: readonly number[];
  /** The blocks of the layer that are read to write the files, half-open. */
  readonly firstBlock: number;
  readonly endBlock: number;
  /** Where in the tar the last content ends. */
  readonly endBytes: number;
}

/** Writes files of a layer into a directory that no other user can change; leaves out those whose path is taken. */
export interface UnpackFilesTask extends Pick<FileBatch, 'tree' | 'blocks'> {
  readonly task: 'unpack-files';
  readonly layer: TaggedDiffId;
  /** A part of the layer's tar that has all that is needed. */
  readonly extents: ExtentRows;
  /** The block that it begins with. */
  readonly firstBlock: number;
  readonly directory: SharedDirectory;
  readonly abilities: Abilities;
}

export interface UnpackFilesResult {
  /** By row: 1 for a file that is there. */
  readonly written: Uint8Array;
}

/** Files of one batch that were to be written before it was known whether the image has them in the end. */
export interface EarlyRows extends Pick<TreeRows, 'count' | 'contentStart' | 'text' | 'textEnd'> {
  /** Row of the layer in the task that read their headers. */
  readonly layer: number;
  /** By row: 1 for a file that is there. */
  readonly written: Uint8Array;
}

/**
 * Removes early files, and directories made for them, that a file system does not have at their paths. The answer: by row of the tree, 1
 * for a file that is there.
 */
export interface KeepFilesTask {
  readonly task: 'keep-files';
  readonly early: readonly EarlyRows[];
  readonly tree: TreeRows;
  /** For each layer of the tree, its number in the early rows. */
  readonly rowOf: readonly number[];
  readonly directory: SharedDirectory;
}

/** A flattened file system as rows: `src/export/file-tree.ts` reads them. */
export interface TreeRows {
  readonly count: number;
  /** The tar type flag as a byte: `0` file, `1` hard link, `2` symlink, `3` and `4` devices, `5` directory, `6` fifo. */
  readonly type: Uint8Array<SharedArrayBuffer>;
  /** Which layer the content is in, and where in its tar. */
  readonly layer: Uint16Array<SharedArrayBuffer>;
  readonly contentStart: Float64Array<SharedArrayBuffer>;
  /** How long the content is: of a sparse file without its holes. */
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
  /** Of a hard link: the row of the file that it is another name of. */
  readonly target: Uint32Array<SharedArrayBuffer>;
  /** The row of the directory that it is in; `NO_ROW` for the root, which need not have one. */
  readonly parent: Int32Array<SharedArrayBuffer>;
  /** Where in `text` the path, the symlink's target and the pax records of extended attributes end, three a row. */
  readonly textEnd: Float64Array<SharedArrayBuffer>;
  readonly text: Uint8Array<SharedArrayBuffer>;
}

/** A device or a pipe. */
export interface SpecialFile {
  /** What messages call it. */
  readonly path: string;
  /** Where the system finds it. */
  readonly at: string;
  /** Whether a link is followed there: where no other user can have put one. */
  readonly follows: boolean;
}

/** Writes a file system as one tar to a file, to a device or a pipe, or, with neither, to the standard output. */
export interface WriteTarTask {
  readonly task: 'write-tar';
  readonly tree: TreeRows;
  readonly to: OpenFile | SpecialFile | undefined;
}

export interface WriteTarResult {
  /** The standard output has no reader any more. */
  readonly closed: boolean;
}

/** The IDs that files can be given; start and count of each range. */
export interface AssignableIds {
  readonly uids: readonly number[];
  readonly gids: readonly number[];
  /** Why no others can: they are not mapped in this user namespace, or owners are not asked for. */
  readonly why: 'namespace' | 'asked';
}

/** What the user of this process can make of a file system. */
export interface Abilities {
  /** Whose process it is. */
  readonly uid: number;
  /** The bits that new files do not get. */
  readonly umask: number;
  /** Whether files can be given to others, and devices made. */
  readonly owners: boolean;
  /** With `owners`: to whom; absent: to all. */
  readonly ids?: AssignableIds;
  /** Whether there is GNU tar to make what Node has no call for. */
  readonly tar: boolean;
}

/** Part of writing a file system into a directory. */
export interface WriteTreeTask {
  readonly tree: TreeRows;
  readonly directory: SharedDirectory;
  /**
   * Inode numbers of directories, by row, where other users could put another in its place: `make-directories` writes them, and what
   * is found under the name later must have it.
   */
  readonly inodes: BigUint64Array<SharedArrayBuffer>;
  readonly abilities: Abilities;
  /** Whether what is there under a name that the tree has goes. */
  readonly replace: boolean;
  /** Whether this export may have made directories already. No other user could make any there. */
  readonly begun: boolean;
}

/** Makes all directories, for this user alone until `finish-files`. */
export interface MakeDirectoriesTask extends WriteTreeTask {
  readonly task: 'make-directories';
}

/** Writes the files and symbolic links of these rows, except those that need tar. */
export interface WriteFilesTask extends WriteTreeTask {
  readonly task: 'write-files';
  readonly rows: Uint32Array;
  /** Where the pool was started without them, and contents are to be written. */
  readonly layers?: readonly ExportedLayer[];
}

/** Has GNU tar make what Node cannot. */
export interface WriteSpecialsTask extends WriteTreeTask {
  readonly task: 'write-specials';
  /** As in `WriteFilesTask`. */
  readonly layers?: readonly ExportedLayer[];
}

export interface WriteSpecialsResult {
  /** What tar could not do, in its words. */
  readonly warnings: readonly string[];
}

/** When all else is there: hard links, then the modes, owners and times of directories, but for the root's. */
export interface FinishFilesTask extends WriteTreeTask {
  readonly task: 'finish-files';
}

export type ExportTask =
  | ExportLayerTask
  | WriteArchiveTask
  | FlattenTask
  | FollowLayersTask
  | UnpackFilesTask
  | KeepFilesTask
  | WriteTarTask
  | MakeDirectoriesTask
  | WriteFilesTask
  | WriteSpecialsTask
  | FinishFilesTask;

/** The answer to each of them. */
export interface ExportResults {
  'export-layer': ExportLayerResult;
  'write-archive': WriteArchiveResult;
  flatten: TreeRows;
  'follow-layers': TreeRows | null;
  'unpack-files': UnpackFilesResult;
  'keep-files': Uint8Array;
  'write-tar': WriteTarResult;
  'make-directories': undefined;
  'write-files': undefined;
  'write-specials': WriteSpecialsResult;
  'finish-files': undefined;
}

/** Tasks that make a tar of one file or directory of an image, of whose layers parts are here. */

/** A layer of which at least the headers are here. */
export interface PartialLayer {
  readonly diffId: Digest;
  /** Length of its tar. */
  readonly tarBytes: number;
  /** The parts of its tar that the store has, in order. */
  readonly extents: ExtentRows;
  /** Which parts of the tar that is, as pairs [start, end); left out, all of it. */
  readonly ranges?: Float64Array;
}

/** Reads the headers of some layers, lowest first, and tells which of them hides from a path what lies below it. */
export interface FindCoverTask {
  readonly task: 'find-cover';
  readonly layers: readonly PartialLayer[];
  /** The names on the way, a letter a byte. */
  readonly names: readonly string[];
}

export interface FindCoverResult {
  /** The highest layer that hides everything below it, -1 where none does. */
  readonly cover: number;
  /** Whether the effect of all layers that were looked at is known, whatever lies below them: if not, no layer below can hide anything. */
  readonly isClear: boolean;
}

/** Reads the headers of an image's layers, lowest first, and tells what file system is at a path. */
export interface PickTreeTask {
  readonly task: 'pick-tree';
  readonly layers: readonly PartialLayer[];
  readonly path: string;
  /** Whether a directory is the root of what is told; else it keeps its name. */
  readonly asRoot: boolean;
}

/** Writes the tar of a file system to a pack, but for the contents, which are in packs already, and hashes all of it. */
export interface WritePickedTask {
  readonly task: 'write-picked';
  readonly tree: TreeRows;
  /** The contents of all files, in the order of their rows. */
  readonly contents: ExtentRows;
}

export interface WritePickedResult {
  readonly digest: Digest;
  readonly extents: ExtentRows;
  /** Those that it wrote to. */
  readonly packs: readonly string[];
}

export type PathTask = FindCoverTask | PickTreeTask | WritePickedTask;

/** The answer to each of them. */
export interface PathResults {
  'find-cover': FindCoverResult;
  'pick-tree': TreeRows;
  'write-picked': WritePickedResult;
}

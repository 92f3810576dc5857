import type { MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import type { LayerTable } from '../format/layer-table.js';
import type { BlobSource } from '../registry/range-client.js';
import type { ExtentRows } from '../store/extents.js';
import type { PackId } from '../store/paths.js';
import type { MetadataPartWithDigest, PackRun } from './pull-tasks.js';

/** Tasks of `workers/check`. */

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

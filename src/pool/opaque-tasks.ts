import type { MessagePort } from 'node:worker_threads';
import type { Digest } from '../format/digest.js';
import type { Compression } from '../format/layer-format.js';
import type { BlobSource } from '../registry/range-client.js';
import type { CachedContentRows } from '../store/cached-contents.js';
import type { PackId } from '../store/paths.js';
import type { DecodedRoom } from './counters.js';
import type { Fetched, RangeTask } from './fetch-tasks.js';

/** Tasks of `workers/opaque`. */

/**
 * Fetches a range of a blob and writes it, without decoding, to this thread's pack for the blob.
 */
export interface FetchOpaqueTask extends RangeTask {
  readonly task: 'fetch-opaque';
  /** Position in the pull's order. */
  readonly sequence: number;
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

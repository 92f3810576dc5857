import type { StreamFault } from '../../src/pool/messages.js';

/** Decodes the blob of an opaque layer. Decoded bytes go to a `DecodedQueue`. */
export interface StreamDecoder {
  /**
   * Takes the next bytes, which are the caller's again when this returns; resolves when it wants
   * more. One call is made at a time. Rejects with a StreamProblem when they cannot be decoded, and
   * with what the taker of decoded bytes throws.
   */
  write(bytes: Buffer): Promise<void>;
  /** No more to come: resolves when everything is decoded and taken. Rejects as `write`. */
  end(): Promise<void>;
  /** Lets go of everything, whether it came to an end or not. */
  close(): Promise<void>;
}

/** Why a blob is not what it should be: a clause whose subject is the blob. */
export class StreamProblem extends Error {
  /** Where in the blob it was noticed; undefined: after what has been decoded so far. */
  readonly blobAt: number | undefined;
  readonly code: StreamFault['code'];

  readonly hint: string | undefined;

  constructor(
    message: string,
    blobAt?: number,
    code: StreamFault['code'] = 'metadata-malformed',
    hint?: string,
  ) {
    super(message);
    this.blobAt = blobAt;
    this.code = code;
    this.hint = hint;
  }
}

/**
 * A problem that bytes behind the last gzip member can be the reason of: zlib does not tell where
 * that ended.
 */
export class UnclearEnd extends StreamProblem {}

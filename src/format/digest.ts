import { PullError } from './error.js';

declare const brand: unique symbol;

/**
 * `sha256:` and 64 lower-case hex digits, checked. Only a checked digest becomes a path, a key or a
 * URL.
 */
export type Digest = string & { readonly [brand]: 'Digest' };

/** Length of a sha256. */
export const DIGEST_BYTES = 32;

/** The digest of no bytes. */
export const EMPTY_DIGEST =
  'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855' as Digest;

const SHA256 = /^sha256:[0-9a-f]{64}$/;

/**
 * Whether `text` is a digest this program supports (OCI image-spec, descriptor.md "Digests"; sha256
 * only).
 */
export function isDigest(text: unknown): text is Digest {
  return typeof text === 'string' && SHA256.test(text);
}

/**
 * Returns `text` as a digest; `what` names it in errors.
 * @throws PullError `unsupported` for another registered algorithm, `metadata-malformed` for
 *   anything else
 */
export function parseDigest(text: unknown, what: string): Digest {
  if (isDigest(text)) return text;
  if (typeof text === 'string' && /^(sha512:[0-9a-f]{128}|blake3:[0-9a-f]{64})$/.test(text)) {
    throw new PullError(
      'unsupported',
      `${what} is a ${text.slice(0, text.indexOf(':'))} digest; only sha256 is supported`,
    );
  }
  throw new PullError('metadata-malformed', `${what} is not a sha256 digest`);
}

/** Returns the 64 hex digits of a digest, its file name in a store or layout. */
export function digestHex(digest: Digest): string {
  return digest.slice('sha256:'.length);
}

/** Returns the digest at `row` of a table of DIGEST_BYTES bytes a row. */
export function digestAt(rows: Uint8Array, row: number): Digest {
  const start = row * DIGEST_BYTES;
  return digestOfBytes(rows.subarray(start, start + DIGEST_BYTES));
}

/** Returns the digest of these 32 bytes. */
export function digestOfBytes(bytes: Uint8Array): Digest {
  return `sha256:${Buffer.from(bytes.buffer, bytes.byteOffset, DIGEST_BYTES).toString('hex')}` as Digest;
}

/** Returns the 32 bytes of a digest. */
export function digestBytes(digest: Digest): Buffer {
  return Buffer.from(digestHex(digest), 'hex');
}

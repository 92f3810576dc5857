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

const HEX = new Int8Array(256).fill(-1);
for (let digit = 0; digit < 16; digit++) HEX[digit.toString(16).charCodeAt(0)] = digit;
const SHA256_PREFIX = Buffer.from('sha256:', 'latin1');

/**
 * Writes the 32 bytes of the digest with the text `bytes[start, end)` to `out` at `at`.
 * @returns whether the text is a sha256 digest
 */
export function copyDigest(bytes: Buffer, start: number, end: number, out: Uint8Array, at: number): boolean {
  const prefix = SHA256_PREFIX.length;
  if (end - start !== prefix + 2 * DIGEST_BYTES) return false;
  for (let i = 0; i < prefix; i++) if (bytes[start + i] !== SHA256_PREFIX[i]) return false;
  let from = start + prefix;
  for (let i = 0; i < DIGEST_BYTES; i++) {
    const value = (HEX[bytes[from]!]! << 4) | HEX[bytes[from + 1]!]!;
    if (value < 0) return false;
    out[at + i] = value;
    from += 2;
  }
  return true;
}

/** Returns the 32 bytes of a digest. */
export function digestBytes(digest: Digest): Buffer {
  return Buffer.from(digestHex(digest), 'hex');
}

/**
 * Most slots examined for one digest. With half of the slots empty, the longest run of sha256
 * digests is about 70 for a million rows. Only a TOC with forged digests makes longer runs, and a
 * row that does not fit is then not found.
 */
const MAX_PROBES = 128;

/**
 * An index of digests: open addressing with linear probing (Knuth, TAOCP vol. 3, 6.4) over typed
 * arrays, by the first four bytes and then all 32; a Map of strings takes ten times the memory and
 * time. A key is a digest and a number (the size of a content, say): the same digest with another
 * number is another key.
 */
export class DigestTable {
  /** For every row the first row with the same key, or -1 if the row cannot be found. */
  readonly firstRow: Int32Array;
  readonly #digests: Uint8Array;
  readonly #numbers: Float64Array;
  /**
   * Two numbers for each slot, adjacent for the processor's cache: first four bytes of the digest,
   * row + 1 (0: empty).
   */
  readonly #slots: Int32Array;
  readonly #mask: number;

  /**
   * `digests` has DIGEST_BYTES bytes a row and is used without a copy; `numbers` has one number a
   * row.
   */
  constructor(digests: Uint8Array, numbers: Float64Array) {
    this.#digests = digests;
    this.#numbers = numbers;
    const slots = 2 ** Math.ceil(Math.log2(Math.max(2, numbers.length * 2)));
    this.#mask = slots - 1;
    this.#slots = new Int32Array(slots * 2);
    this.firstRow = new Int32Array(numbers.length);
    for (let row = 0; row < numbers.length; row++) this.firstRow[row] = this.#insert(row);
  }

  /** Returns a table of the rows of these groups, one group after the other. */
  static of(
    groups: ReadonlyArray<{ readonly digests: Uint8Array; readonly sizeBytes: Float64Array }>,
  ): DigestTable {
    const rows = groups.reduce((sum, { sizeBytes }) => sum + sizeBytes.length, 0);
    const digests = new Uint8Array(rows * DIGEST_BYTES);
    const sizeBytes = new Float64Array(rows);
    let row = 0;
    for (const group of groups) {
      digests.set(group.digests.subarray(0, group.sizeBytes.length * DIGEST_BYTES), row * DIGEST_BYTES);
      sizeBytes.set(group.sizeBytes, row);
      row += group.sizeBytes.length;
    }
    return new DigestTable(digests, sizeBytes);
  }

  /**
   * Whether the table has a digest with the same first four bytes as the one at `at`: false for
   * nearly all that are missing, at a third of the cost of `find`.
   */
  mayHave(bytes: Uint8Array, at: number): boolean {
    const slots = this.#slots;
    const mask = this.#mask;
    const word = firstWord(bytes, at);
    for (let probe = 0; probe < MAX_PROBES; probe++) {
      const slot = ((word + probe) & mask) * 2;
      if (slots[slot + 1] === 0) return false;
      if (slots[slot] === word) return true;
    }
    return false;
  }

  /** Returns the first row with the digest in `bytes` at `at` and this number, or -1. */
  find(bytes: Uint8Array, at: number, number: number): number {
    const slot = this.#probe(bytes, at, number);
    return slot < 0 ? -1 : this.#slots[slot + 1]! - 1;
  }

  #insert(row: number): number {
    const at = row * DIGEST_BYTES;
    const slot = this.#probe(this.#digests, at, this.#numbers[row]!);
    if (slot < 0) return -1;
    if (this.#slots[slot + 1] === 0) {
      this.#slots[slot] = firstWord(this.#digests, at);
      this.#slots[slot + 1] = row + 1;
    }
    return this.#slots[slot + 1]! - 1;
  }

  /**
   * Returns the slot of a key, or the empty slot where it would be; -1 if that is too far from its
   * place.
   */
  #probe(bytes: Uint8Array, at: number, number: number): number {
    const word = firstWord(bytes, at);
    for (let probe = 0; probe < MAX_PROBES; probe++) {
      const slot = ((word + probe) & this.#mask) * 2;
      const row = this.#slots[slot + 1]! - 1;
      if (row < 0) return slot;
      if (this.#slots[slot] !== word || this.#numbers[row] !== number) continue;
      if (this.#isDigest(row, bytes, at)) return slot;
    }
    return -1;
  }

  #isDigest(row: number, bytes: Uint8Array, at: number): boolean {
    const start = row * DIGEST_BYTES;
    for (let i = 0; i < DIGEST_BYTES; i++) if (this.#digests[start + i] !== bytes[at + i]) return false;
    return true;
  }
}

function firstWord(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

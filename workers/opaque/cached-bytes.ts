import { PullError } from '../../src/format/error.js';
import {
  type CachedContents,
  MAX_DIGEST_KEY_BYTES,
  type PackLocation,
} from '../../src/store/cached-contents.js';
import { findCorruption } from '../../src/store/corruption.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import type { StorePaths } from '../../src/store/paths.js';

/** Bytes read and compared at a time: they fit the cache. */
const STEP_BYTES = 64 * 1024;

/** Mismatching runs to hash; `store verify` finds the rest. */
const MAX_SUSPECTS = 1000;

/** Finds bytes in packs. Reads and compares them, so that no index needs to be trusted. */
export class CachedBytes {
  readonly #paths: StorePaths;
  readonly #contents: CachedContents;
  readonly #reader: PackReader;
  readonly #step = Buffer.allocUnsafeSlow(STEP_BYTES);
  /** Contents with the right start of a digest and other bytes. */
  readonly #suspects = new ExtentList();

  constructor(paths: StorePaths, contents: CachedContents) {
    this.#paths = paths;
    this.#contents = contents;
    this.#reader = new PackReader(paths);
  }

  /** Whether the packs may have a content of this size. */
  takes(sizeBytes: number): boolean {
    return this.#contents.accepts(sizeBytes);
  }

  /**
   * Returns the location of the bytes of these parts, which follow each other at `position` in a
   * content of `sizeBytes`. `digest` is the digest of the content, if its size requires one.
   */
  find(
    sizeBytes: number,
    digest: Buffer,
    position: number,
    parts: readonly Buffer[],
  ): PackLocation | undefined {
    for (const { pack, offset } of this.#contents.locations(sizeBytes, digest)) {
      const location = { pack, offset: offset + position };
      if (this.#has(location, parts)) return location;
      if (sizeBytes <= MAX_DIGEST_KEY_BYTES && this.#suspects.count < MAX_SUSPECTS)
        this.#suspects.push(pack, offset, sizeBytes);
    }
    return undefined;
  }

  /**
   * Marks runs without the digest in their index, which others would trust. Ignores errors of the
   * disk.
   */
  markCorruptRun(): void {
    if (this.#suspects.count === 0) return;
    try {
      findCorruption(this.#paths, this.#reader, this.#suspects);
    } catch (error) {
      // The layer does not need these runs.
      if (!(error instanceof PullError)) throw error;
    }
  }

  close(): void {
    this.#reader.close();
  }

  /** Whether the pack has these bytes; false if it cannot be read. */
  #has({ pack, offset }: PackLocation, parts: readonly Buffer[]): boolean {
    let at = offset;
    try {
      for (const part of parts) {
        for (let done = 0; done < part.length; done += STEP_BYTES) {
          const bytes = Math.min(STEP_BYTES, part.length - done);
          this.#reader.readInto(this.#step, 0, pack, at, bytes);
          if (this.#step.compare(part, done, done + bytes, 0, bytes) !== 0) return false;
          at += bytes;
        }
      }
      return true;
    } catch (error) {
      if (error instanceof PullError) return false;
      throw error;
    }
  }
}

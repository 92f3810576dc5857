import { PullError } from '../../src/format/error.js';
import {
  type CachedContents,
  MAX_DIGEST_KEY_BYTES,
  type PackLocation,
} from '../../src/store/cached-contents.js';
import { ExtentList } from '../../src/store/extents.js';
import { findCorruption } from '../../src/store/find-corruption.js';
import { PackReader } from '../../src/store/pack-reader.js';
import type { StorePaths } from '../../src/store/paths.js';

/** Bytes read and compared at a time: they are still in the cache then. */
const STEP_BYTES = 64 * 1024;

/** Runs that are hashed when they are not what was looked for; what more of them is false, `store verify` finds. */
const MAX_SUSPECTS = 1000;

/** Bytes in memory that a pack has, too: they are read and compared, so that no index needs to be believed. */
export class CachedBytes {
  readonly #paths: StorePaths;
  readonly #contents: CachedContents;
  readonly #reader: PackReader;
  readonly #step = Buffer.allocUnsafeSlow(STEP_BYTES);
  /** Whole contents with the beginning of a digest whose bytes are others. */
  readonly #suspects = new ExtentList();

  constructor(paths: StorePaths, contents: CachedContents) {
    this.#paths = paths;
    this.#contents = contents;
    this.#reader = new PackReader(paths);
  }

  /** Whether a content of this size is worth asking for. */
  takes(sizeBytes: number): boolean {
    return this.#contents.accepts(sizeBytes);
  }

  /**
   * Where the bytes of these parts lie one behind the other. They stand at `position` in a content of `sizeBytes`; `digest` is
   * the content's, as far as it is asked for.
   */
  find(
    sizeBytes: number,
    digest: Buffer,
    position: number,
    parts: readonly Buffer[],
  ): PackLocation | undefined {
    for (const { pack, offset } of this.#contents.locations(sizeBytes, digest)) {
      const place = { pack, offset: offset + position };
      if (this.#has(place, parts)) return place;
      if (sizeBytes <= MAX_DIGEST_KEY_BYTES && this.#suspects.count < MAX_SUSPECTS)
        this.#suspects.push(pack, offset, sizeBytes);
    }
    return undefined;
  }

  /** Marks what has not the digest that its index says: others would believe it. What the disk refuses is left as it is. */
  markCorruptRun(): void {
    if (this.#suspects.count === 0) return;
    try {
      findCorruption(this.#paths, this.#reader, this.#suspects);
    } catch (error) {
      // The stream has its own bytes: a disk that does not give back those of others is no reason to end.
      if (!(error instanceof PullError)) throw error;
    }
  }

  close(): void {
    this.#reader.close();
  }

  /** What cannot be read, for whatever reason, is not there. */
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

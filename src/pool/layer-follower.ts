import type { Digest } from '../format/digest.js';
import type { BlockTagRows, ExtentRows } from './store-tasks.js';

/** Goes along with a pull, on the main thread, and uses layers before all of them are there. Nothing in it throws. */
export interface LayerFollower {
  /** The layers of the image, lowest first. Called once, before any of them is pulled. */
  begin(diffIds: readonly Digest[]): void;
  /**
   * Called for each attempt at a layer, before its first byte; `mostTarBytes` is an estimate of how long its tar is at most.
   * Returns undefined when nobody follows this attempt.
   */
  follow(diffId: Digest, mostTarBytes: number): FollowedLayer | undefined;
}

/** One attempt at a layer: its tar as it comes to lie on disk. */
export interface FollowedLayer {
  /** The proof leaves the tags of the blocks that it hashes here. */
  readonly tags: BlockTagRows;
  /** The next bytes of the tar are on disk. */
  feed(extents: ExtentRows): void;
  /** The tar is there as a whole; `isProven`: it hashes to the DiffID, and its blocks agree with the tags. */
  end(isProven: boolean): void;
}

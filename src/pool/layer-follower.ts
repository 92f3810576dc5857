import type { Digest } from '../format/digest.js';
import type { ExtentRows } from '../store/extents.js';
import type { BlockTagRows } from './check-tasks.js';

/** Uses the layers of a pull before all of them are there. Its methods run on the main thread and must not throw. */
export interface LayerFollower {
  /** The layers of the image, lowest first. Called once, before any of them is pulled. */
  begin(diffIds: readonly Digest[]): void;
  /** Called before the first byte of some of them. */
  expect?(bytes: ExpectedBytes): Promise<void>;
  /**
   * Called for each attempt at a layer, before its first byte; `mostTarBytes` is an estimate of how long its tar is at most.
   * Returns undefined when this attempt is not followed.
   */
  follow(diffId: Digest, mostTarBytes: number): FollowedLayer | undefined;
  /** The disk of the store is full. Resolves when all that the follower has written is removed, if it could be. */
  makeRoom?(): Promise<void>;
}

/** What the pull of some layers will write, about. */
export interface ExpectedBytes {
  readonly storeBytes: number;
  /** Of the tars whose length is known. */
  readonly tarBytes: number;
}

/** One attempt at a layer; told of its tar as that is written to disk. */
export interface FollowedLayer {
  /** The proof leaves the tags of the blocks that it hashes here. */
  readonly tags: BlockTagRows;
  /** The next bytes of the tar are on disk. */
  feed(extents: ExtentRows): void;
  /** The whole tar is on disk. `isProven`: it hashes to the DiffID, and its blocks agree with the tags. */
  end(isProven: boolean): void;
}

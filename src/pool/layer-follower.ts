import type { Digest } from '../format/digest.js';
import type { ExtentRows } from '../store/extents.js';
import type { BlockTagRows } from './check-tasks.js';

/**
 * Uses the layers of a pull while they are being pulled. Its methods run on the main thread and
 * must not throw.
 */
export interface LayerFollower {
  /** The layers of the image, lowest first. Called once, before any of them is pulled. */
  begin(diffIds: readonly Digest[]): void;
  /** Called before the first byte of some of them. */
  expect?(bytes: ExpectedBytes): Promise<void>;
  /**
   * Called for each attempt at a layer, before its first byte; `mostTarBytes` is an estimate of the
   * maximum length of its tar. Returns undefined if the follower does not use this attempt.
   */
  follow(diffId: Digest, mostTarBytes: number): FollowedLayer | undefined;
  /**
   * Called when the disk of the store is full. Resolves when the follower has removed what it
   * wrote, as far as possible.
   */
  makeRoom?(): Promise<void>;
}

/** An estimate of what the pull of some layers will write. */
export interface ExpectedBytes {
  readonly storeBytes: number;
  /** Total of the tars of known length. */
  readonly tarBytes: number;
}

/** One attempt at a layer; receives its tar as it is written to disk. */
export interface FollowedLayer {
  /** Receives the tags of the blocks when they are hashed. */
  readonly tags: BlockTagRows;
  /** The next bytes of the tar are on disk. */
  feed(extents: ExtentRows): void;
  /**
   * The complete tar is on disk. `isProven`: it has the DiffID, and its blocks agree with the tags.
   */
  end(isProven: boolean): void;
}

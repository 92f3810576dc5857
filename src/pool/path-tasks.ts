import type { Digest } from '../format/digest.js';
import type { TreeRows } from './export-tasks.js';
import type { ExtentRows } from './store-tasks.js';

/** Tasks that make a tar of one file or directory of an image, of whose layers parts are here. */

/** A layer of which at least the headers are here. */
export interface PartialLayer {
  readonly diffId: Digest;
  /** Length of its tar. */
  readonly tarBytes: number;
  /** The parts of its tar that the store has, in order. */
  readonly extents: ExtentRows;
  /** Which parts of the tar that is, as pairs [start, end); left out, all of it. */
  readonly ranges?: Float64Array;
}

/** Reads the headers of some layers, lowest first, and tells which of them hides from a path what lies below it. */
export interface FindCoverTask {
  readonly task: 'find-cover';
  readonly layers: readonly PartialLayer[];
  /** The names on the way, a letter a byte. */
  readonly names: readonly string[];
}

export interface FindCoverResult {
  /** The highest layer that hides everything below it, -1 where none does. */
  readonly cover: number;
  /** Whether the effect of all layers that were looked at is known, whatever lies below them: if not, no layer below can hide anything. */
  readonly isClear: boolean;
}

/** Reads the headers of an image's layers, lowest first, and tells what file system is at a path. */
export interface PickTreeTask {
  readonly task: 'pick-tree';
  readonly layers: readonly PartialLayer[];
  readonly path: string;
  /** Whether a directory is the root of what is told; else it keeps its name. */
  readonly asRoot: boolean;
}

/** Writes the tar of a file system to a pack, but for the contents, which are in packs already, and hashes all of it. */
export interface WritePickedTask {
  readonly task: 'write-picked';
  readonly tree: TreeRows;
  /** The contents of all files, in the order of their rows. */
  readonly contents: ExtentRows;
}

export interface WritePickedResult {
  readonly digest: Digest;
  readonly extents: ExtentRows;
  /** Those that it wrote to. */
  readonly packs: readonly string[];
}

export type PathTask = FindCoverTask | PickTreeTask | WritePickedTask;

/** The answer to each of them. */
export interface PathResults {
  'find-cover': FindCoverResult;
  'pick-tree': TreeRows;
  'write-picked': WritePickedResult;
}

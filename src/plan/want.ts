import type { LayerTable } from '../format/layer-table.js';

/** An unbroken part of a blob that a broken-off pull left in a pack, checked by whoever found it. */
export interface ResumedPiece {
  readonly blobStart: number;
  readonly blobEnd: number;
  /** Where its decoded bytes begin in the layer's tar. */
  readonly tarStart: number;
  readonly lengthBytes: number;
  /** Index into the caller's table of packs. */
  readonly pack: number;
  readonly packOffset: number;
}

/** One layer to plan: its contents and what is on disk already. Rows of the held arrays are rows of the table. */
export interface LayerWant {
  readonly table: LayerTable;
  /** Index into the caller's table of packs, or -1 for a content that no pack holds whole. */
  readonly cachedPack: Int32Array;
  readonly cachedOffset: Float64Array;
  /** The same for each chunk row; not looked at when the whole content is held. */
  readonly chunkCachedPack: Int32Array;
  readonly chunkCachedOffset: Float64Array;
  /** Ascending by blobStart, not overlapping. A piece that contradicts the table is not used. */
  readonly resumed: readonly ResumedPiece[];
}

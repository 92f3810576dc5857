import type { ChunkedPositions } from '../format/annotations.js';
import type { Digest } from '../format/digest.js';
import type { LayerTable } from '../format/layer-table.js';
import type { BlobSource } from '../pool/messages.js';

/** A layer that the store does not have, as the manifest and its annotations describe it. */
export interface WantedLayer {
  readonly blob: BlobSource;
  readonly diffId: Digest;
  readonly positions: ChunkedPositions & Required<Pick<ChunkedPositions, 'tarSplit'>>;
}

/** The same with its metadata read. */
export interface ChunkedLayer extends WantedLayer {
  readonly table: LayerTable;
  readonly tarSplitDigest: Digest;
  /** What reading the metadata cost. */
  readonly metadataFetchedBytes: number;
  readonly metadataRequests: number;
}

/** Figures of one layer's fetch, as the result reports them. */
export interface LayerFigures {
  readonly tarBytes: number;
  readonly metadataBytes: number;
  readonly fetchedBytes: number;
  readonly reusedBytes: number;
  readonly resumedBytes: number;
  readonly requests: number;
}

import type { Digest } from '../format/digest.js';
import type { PullError } from '../format/error.js';
import {
  type Compression,
  type LayerFormat,
  type MetadataLocation,
  statedCompression,
} from '../format/layer-format.js';
import type { BlobSource, LayerMetadata } from '../pool/messages.js';
import type { PullContext } from './context.js';

/** A layer that the store does not have, as its descriptor describes it. */
export interface WantedLayer {
  readonly blob: BlobSource;
  readonly diffId: Digest;
  readonly format: LayerFormat;
  readonly mediaType: string;
  /** What it is taken for until its first bytes are there. */
  readonly compression: Compression;
  /** Where its metadata is, for what may be chunked. */
  readonly place?: MetadataLocation;
  /** Where else a foreign layer is to be had, in the manifest's order. */
  readonly otherUrls: readonly string[];
}

/** The same once its metadata was looked for: without any, it is one stream. */
export interface KnownLayer extends WantedLayer {
  readonly metadata?: LayerMetadata;
  /** What looking cost. */
  readonly cost: FetchFigures;
  /** Why there is none, where there should have been some. */
  readonly failedBefore?: PullError;
}

export type ChunkedLayer = KnownLayer & Required<Pick<KnownLayer, 'metadata'>>;

/** Whether a layer is pulled by its table of contents. */
export function isChunked(layer: KnownLayer): layer is ChunkedLayer {
  return layer.metadata !== undefined;
}

/** Tells that a media type states another compression than the blob has; other clients may refuse such an image. */
export function warnOfType(
  emit: PullContext['emit'],
  { blob, mediaType }: WantedLayer,
  actual: Compression,
): void {
  const stated = statedCompression(mediaType);
  if (stated === undefined || stated === actual) return;
  const message = `layer ${blob.digest}: its media type says ${stated}, but its bytes are ${actual}; they are decoded as ${actual}`;
  emit({ event: 'warning', message });
}

/** Body bytes of one blob that were received, and GETs of it. */
export interface FetchFigures {
  fetchedBytes: number;
  requests: number;
}

/** The total of several fetches. */
export function sumOfFetches(figures: readonly Readonly<FetchFigures>[]): FetchFigures {
  return {
    fetchedBytes: figures.reduce((sum, { fetchedBytes }) => sum + fetchedBytes, 0),
    requests: figures.reduce((sum, { requests }) => sum + requests, 0),
  };
}

/** Figures of one layer's fetch, as the result reports them. */
export interface LayerFigures {
  readonly format: LayerFormat;
  readonly tarBytes: number;
  readonly metadataBytes: number;
  readonly fetchedBytes: number;
  readonly reusedBytes: number;
  readonly resumedBytes: number;
  readonly requests: number;
}

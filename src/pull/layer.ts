import type { Digest } from '../format/digest.js';
import { type ErrorCode, PullError } from '../format/error.js';
import {
  type Compression,
  type LayerFormat,
  type MetadataLocation,
  statedCompression,
} from '../format/layer-format.js';
import type { BlobSource, LayerMetadata } from '../pool/messages.js';
import type { PullContext } from './pull-context.js';

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

/**
 * What chunked metadata can be guilty of, under a blob that is good all the same: it is malformed, its digests are not
 * those of the bytes, or it asks for more than we do. Everything else a second way would meet again.
 */
const CODES: ReadonlySet<ErrorCode> = new Set(['metadata-malformed', 'digest-mismatch', 'unsupported']);

/** Whether what failed so may still be had by pulling whole layers. */
export function mayFallBack(error: unknown): error is PullError {
  return error instanceof PullError && CODES.has(error.code);
}

/** Whether a chunked layer that failed so may still be pulled as a whole; if so, the user is told. */
export function warnOfFallback(context: PullContext, layer: WantedLayer, error: unknown): boolean {
  if (!mayFallBack(error)) return false;
  const message = `layer ${layer.blob.digest}: ${error.message}; it is pulled as a whole`;
  context.emit({ event: 'warning', message });
  return true;
}

import type { Digest } from '../format/digest.js';
import { type ErrorCode, PullError } from '../format/error.js';
import {
  type Compression,
  type LayerFormat,
  type MetadataLocation,
  statedCompression,
} from '../format/layer-format.js';
import type { LayerMetadata } from '../pool/messages.js';
import type { BlobSource } from '../registry/range-client.js';
import type { PullContext } from './pull-context.js';

/** A layer that the store does not have, as its descriptor states it. */
export interface MissingLayer {
  readonly blob: BlobSource;
  readonly diffId: Digest;
  readonly format: LayerFormat;
  readonly mediaType: string;
  /** Assumed until its first bytes arrive. */
  readonly compression: Compression;
  /** Where to look for its metadata; undefined for a layer that cannot be chunked. */
  readonly place?: MetadataLocation;
  /** Further URLs of a foreign layer, in the manifest's order. */
  readonly otherUrls: readonly string[];
}

/** A missing layer whose metadata has been looked for. Without any, it is an opaque layer. */
export interface KnownLayer extends MissingLayer {
  readonly metadata?: LayerMetadata;
  /** The cost of looking. */
  readonly cost: FetchFigures;
  /** Why there is no metadata although there should be. */
  readonly failedBefore?: PullError;
}

export type ChunkedLayer = KnownLayer & Required<Pick<KnownLayer, 'metadata'>>;

export function isChunked(layer: KnownLayer): layer is ChunkedLayer {
  return layer.metadata !== undefined;
}

/**
 * Warns of a blob with another compression than its media type states; other clients may refuse
 * such an image.
 */
export function warnOfType(
  emit: PullContext['emit'],
  { blob, mediaType }: MissingLayer,
  actual: Compression,
): void {
  const stated = statedCompression(mediaType);
  if (stated === undefined || stated === actual) return;
  const message = `layer ${blob.digest}: its media type says ${stated}, but its bytes are ${actual}; they are decoded as ${actual}`;
  emit({ event: 'warning', message });
}

/** Received body bytes of one blob, and its GETs. */
export interface FetchFigures {
  fetchedBytes: number;
  requests: number;
}

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
 * Errors of chunked metadata under a blob that can be right all the same: malformed, a wrong
 * digest, or beyond a limit. Any other error would occur again without the metadata.
 */
const FALLBACK_CODES: ReadonlySet<ErrorCode> = new Set([
  'metadata-malformed',
  'digest-mismatch',
  'unsupported',
]);

/** Whether a pull in parts that failed with this error may succeed with full layers. */
export function mayFallBack(error: unknown): error is PullError {
  return error instanceof PullError && FALLBACK_CODES.has(error.code);
}

/**
 * Whether a chunked layer that failed with this error may succeed as an opaque one; warns if so.
 */
export function warnOfFallback(context: PullContext, layer: MissingLayer, error: unknown): boolean {
  if (!mayFallBack(error)) return false;
  const message = `layer ${layer.blob.digest}: ${error.message}; pulling the full layer instead`;
  context.emit({ event: 'warning', message });
  return true;
}

import { setTimeout as sleep } from 'node:timers/promises';
import type { Digest } from '../format/digest.js';
import { type ErrorCode, PullError } from '../format/error.js';
import {
  type Compression,
  type LayerFormat,
  type LayerKind,
  layerKind,
  type MetadataLocation,
  statedCompression,
} from '../format/layer-format.js';
import type { Descriptor } from '../format/manifest.js';
import type { LayerMetadata } from '../pool/messages.js';
import type { BlobSource } from '../registry/range-client.js';
import type { RegistrySession } from '../registry/session.js';
import type { LayerLocks } from '../store/layer-locks.js';
import { readLayerRecord } from '../store/layer-record.js';
import type { StorePaths } from '../store/paths.js';
import { foreignUrlsOf, hostsOf } from './blob-locations.js';
import type { PullContext, Stop } from './pull-context.js';
import type { LayerFigures } from './pull-result.js';
import type { ResolvedImage } from './resolve-image.js';

/** A layer that the store does not have, as its descriptor states it. */
export interface MissingLayer {
  readonly blob: BlobSource;
  readonly diffId: Digest;
  readonly format: LayerFormat;
  readonly mediaType: string;
  /** Assumed until its first bytes arrive. */
  readonly compression: Compression;
  /** Where to look for its metadata; undefined for a layer that cannot be chunked. */
  readonly location?: MetadataLocation;
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
 * Whether a layer is opaque by its descriptor. A zstd blob without annotations may have a footer
 * that leads to a table of contents; hardly any has.
 */
export function isLikelyOpaque({ location }: Pick<MissingLayer, 'location'>): boolean {
  return location === undefined || (location.by === 'footer' && location.compression === 'zstd');
}

/** Blob sizes of the layers that are opaque by their descriptors. */
export function likelyStreamBytes(layers: ReadonlyArray<Pick<MissingLayer, 'blob' | 'location'>>): number[] {
  return layers.filter(isLikelyOpaque).map(({ blob }) => blob.sizeBytes);
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
  return sumOf(figures, 'fetchedBytes', 'requests');
}

/** The sum of each of these fields over all items. */
export function sumOf<K extends string>(
  items: ReadonlyArray<Readonly<Record<K, number>>>,
  ...fields: readonly K[]
): Record<K, number> {
  const sums = fields.map((field) => [field, items.reduce((sum, item) => sum + item[field], 0)]);
  return Object.fromEntries(sums) as Record<K, number>;
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

/** A layer of the image, cached or missing. */
export interface ImageLayer {
  readonly descriptor: Descriptor;
  readonly diffId: Digest;
  readonly kind: LayerKind;
  /** Length of its tar if it is cached. */
  readonly cachedTarBytes: number | undefined;
}

/** The layers of an image. @throws PullError `unsupported` for a descriptor of something else */
export function imageLayers(image: ResolvedImage, paths: StorePaths): ImageLayer[] {
  return image.manifest.layers.map((descriptor, i) => {
    const diffId = image.config.diffIds[i]!;
    const cachedTarBytes = readLayerRecord(paths, diffId)?.extents.lengthBytes;
    return { descriptor, diffId, kind: layerKind(descriptor), cachedTarBytes };
  });
}

interface MissingOptions {
  readonly registry: Pick<RegistrySession, 'blobUrl'>;
  readonly allowForeign: boolean;
  /** Called for annotations that are ignored. */
  readonly warn: (message: string) => void;
}

/**
 * The layers to pull, each DiffID once.
 * @throws PullError `unsupported` for a foreign layer without `allowForeign`
 */
export function missingLayers(layers: readonly ImageLayer[], options: MissingOptions): MissingLayer[] {
  const missing = new Map<Digest, MissingLayer>();
  for (const layer of layers) {
    if (layer.cachedTarBytes !== undefined || missing.has(layer.diffId)) continue;
    missing.set(layer.diffId, missingLayer(layer, options));
  }
  return [...missing.values()];
}

function missingLayer({ descriptor, diffId, kind }: ImageLayer, options: MissingOptions): MissingLayer {
  const { digest, sizeBytes, mediaType } = descriptor;
  const { format, compression, location, problem } = kind;
  if (problem !== undefined) {
    options.warn(`layer ${digest}: ${problem}; pulling the full layer instead`);
  }
  const [foreignUrl, ...otherUrls] = kind.foreign ? foreignUrls(descriptor, options) : [];
  const blob =
    foreignUrl === undefined
      ? { url: options.registry.blobUrl(digest), digest, sizeBytes }
      : { url: foreignUrl, digest, sizeBytes, anonymous: true as const };
  return { blob, diffId, format, mediaType, compression, otherUrls, ...(location && { location }) };
}

/** The URLs of a foreign layer; empty when its descriptor has none and it is in the registry. */
function foreignUrls(layer: Descriptor, { allowForeign }: MissingOptions): string[] {
  const { digest, urls = [] } = layer;
  if (urls.length === 0) return [];
  if (allowForeign) return foreignUrlsOf(layer);
  throw new PullError('unsupported', `layer ${digest} is not in the registry but at ${hostsOf(layer)}`, {
    layer: digest,
    hint: 'if you trust that host, pull with --allow-foreign: it gets no credentials, and the digest is verified',
  });
}

/** Something keeps deleting a layer that is missing again after so many pulls. */
const MAX_PULLS = 2;

/** How often a waiting pull or copy looks for a lock: each look reads some small files. */
export const POLL_MS = 200;

interface PullMissingOptions {
  readonly locks: LayerLocks;
  readonly stop: Stop;
  /** Lists the layers that the store does not have now. */
  readonly missing: () => Promise<readonly MissingLayer[]>;
  /** Returns figures in the order of the layers. */
  readonly pull: (layers: readonly MissingLayer[]) => Promise<readonly LayerFigures[]>;
  /** Called with the layers that other processes pull, and with those that this one does. */
  readonly onTurn: (theirs: ReadonlySet<Digest>, ours: ReadonlySet<Digest>) => void;
  /** Called when all remaining layers are locked by other processes. */
  readonly onWait: (layers: number) => void;
}

/**
 * Pulls the layers that the store does not have. Those that another process is pulling come last:
 * by then they are cached, or their locks are free. A layer that disappears meanwhile (by a prune
 * that had begun before) is pulled again, once.
 * @returns figures by DiffID
 * @throws PullError the reason of a stop; as `pull` and `storageError`
 */
export async function pullMissing(options: PullMissingOptions): Promise<Map<Digest, LayerFigures>> {
  const { locks, stop, missing, pull, onTurn, onWait } = options;
  const figures = new Map<Digest, LayerFigures>();
  const pulls = new Map<Digest, number>();
  for (;;) {
    const remaining = (await missing()).filter(({ diffId }) => (pulls.get(diffId) ?? 0) < MAX_PULLS);
    if (remaining.length === 0) {
      onTurn(new Set(), new Set());
      return figures;
    }
    const locked = new Set(remaining.map(({ diffId }) => diffId).filter((diffId) => locks.tryLock(diffId)));
    onTurn(new Set(remaining.map(({ diffId }) => diffId).filter((diffId) => !locked.has(diffId))), locked);
    // The process that had a lock before may have published the layer meanwhile.
    const layers = locked.size === 0 ? [] : (await missing()).filter(({ diffId }) => locked.has(diffId));
    if (layers.length > 0) {
      const pulled = await pull(layers);
      for (const [i, { diffId }] of layers.entries()) {
        figures.set(diffId, pulled[i]!);
        pulls.set(diffId, (pulls.get(diffId) ?? 0) + 1);
      }
    }
    locks.releaseAll();
    if (locked.size > 0) continue;
    onWait(remaining.length);
    // No request is in flight meanwhile: karma's clock is paused.
    while (remaining.every(({ diffId }) => locks.isLocked(diffId))) await stop.guard(sleep(POLL_MS));
  }
}

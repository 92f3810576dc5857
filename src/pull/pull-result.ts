import type { LayerFormat } from '../format/layer-format.js';
import type { Stages } from '../pool/stages.js';
import type { StorePaths } from '../store/paths.js';
import { type ImageLayer, type KnownLayer, sumOf } from './layer.js';
import type { PlannedFigures } from './prepare-layers.js';
import type { ResolvedImage } from './resolve-image.js';

/** A layer of a pulled image, and what was fetched and reused for it, in bytes. */
export interface LayerResult {
  readonly digest: string;
  readonly diffId: string;
  readonly mediaType: string;
  readonly format: LayerFormat;
  readonly sizeBytes: number;
  readonly tarBytes: number;
  readonly metadataBytes: number;
  /** Body bytes received of this blob, including metadata, gaps and bytes received twice. */
  readonly fetchedBytes: number;
  /** Tar bytes found in the store by digest, or the full tar of a cached layer. */
  readonly reusedBytes: number;
  /** Verified tar bytes of an interrupted pull. */
  readonly resumedBytes: number;
  /** GETs of this blob, retries included. */
  readonly requests: number;
}

/** The result of a pull: the image is in the store, verified. */
export interface PullResult {
  readonly image: string;
  readonly digest: string;
  /** The digest of the index that names the manifest, if there is one. */
  readonly indexDigest?: string;
  readonly platform: string;
  readonly store: string;
  readonly layers: readonly LayerResult[];
  readonly fetchedBytes: number;
  readonly reusedBytes: number;
  readonly resumedBytes: number;
  readonly requests: number;
  readonly misses: number;
  readonly durationMs: number;
  readonly stages: Stages;
  readonly verified: true;
}

/** The part of an image to pull. */
export interface PathSelection {
  /** In the image; links are followed. */
  readonly path: string;
  /** Whether a directory becomes the root of the export; otherwise it keeps its name. */
  readonly asRoot: boolean;
}

export interface PathResult extends PullResult {
  /**
   * Layers to export: those of the image, or one that has only what is at the path (`isPicked`).
   */
  readonly diffIds: readonly string[];
  readonly isPicked: boolean;
}

/** Figures of one layer's fetch. */
export type LayerFigures = Omit<LayerResult, 'digest' | 'diffId' | 'mediaType' | 'sizeBytes'>;

/** The results of all layers and their totals; `figures` has those that were pulled, by DiffID. */
export function layerTotals(layers: readonly ImageLayer[], figures: ReadonlyMap<string, LayerFigures>) {
  const seen = new Set<string>();
  const results = layers.map(({ descriptor, diffId, kind, cachedTarBytes = 0 }): LayerResult => {
    const { digest, mediaType, sizeBytes } = descriptor;
    const pulled = figures.get(diffId);
    const isFirst = pulled !== undefined && !seen.has(diffId);
    seen.add(diffId);
    const format = pulled?.format ?? kind.format;
    const own = isFirst ? pulled : { format, ...cachedFigures(pulled?.tarBytes ?? cachedTarBytes) };
    return { digest, diffId, mediaType, sizeBytes, ...own };
  });
  return { layers: results, ...sumOf(results, 'fetchedBytes', 'reusedBytes', 'resumedBytes', 'requests') };
}

/** Figures of a cached layer, or of one with the DiffID of a layer below it. */
function cachedFigures(tarBytes: number): Omit<LayerFigures, 'format'> {
  return { tarBytes, metadataBytes: 0, fetchedBytes: 0, reusedBytes: tarBytes, resumedBytes: 0, requests: 0 };
}

/**
 * A layer, and what pulling it would do. Fetched bytes are those of the blob, reused and resumed
 * ones of the tar.
 */
export interface LayerInspection extends Omit<PlannedFigures, 'diskBytes'> {
  readonly digest: string;
  readonly diffId: string;
  readonly mediaType: string;
  readonly format: LayerFormat;
  /** The source of the format: annotations, a footer, the media type. */
  readonly reason: string;
  readonly sizeBytes: number;
  /** Entries of the table of contents, if it was read. */
  readonly entries?: number;
  /** Whether the store has the layer. */
  readonly held: boolean;
}

/** What a reference names, and what pulling it would do. */
export interface ImageInspection {
  readonly image: string;
  readonly digest: string;
  /** The digest of the index that names the manifest, if there is one. */
  readonly indexDigest?: string;
  readonly mediaType: string;
  readonly platform: string;
  /** The platforms of the index, if there is one. */
  readonly platforms?: ReadonlyArray<{ readonly platform: string; readonly digest: string }>;
  readonly store: string;
  /** The parsed image config. */
  readonly config: unknown;
  readonly layers: readonly LayerInspection[];
  readonly fetchBytes: number;
  readonly reuseBytes: number;
  readonly resumedBytes: number;
  readonly requests: number;
  readonly stages: Stages;
}

/** What pulling an image would fetch and reuse, in bytes and requests. */
export interface Plan extends Omit<ImageInspection, 'config' | 'platforms' | 'layers'> {
  readonly layers: readonly Omit<LayerInspection, 'reason' | 'entries'>[];
}

/** Returns the plan in an inspection, without what the image is. */
export function planOf({ config: _config, platforms: _platforms, ...plan }: ImageInspection): Plan {
  return { ...plan, layers: plan.layers.map(({ reason: _, entries: _entries, ...layer }) => layer) };
}

/** The missing layers, with their planned figures. */
export interface PreparedLayers {
  readonly layers: readonly KnownLayer[];
  readonly figures: readonly PlannedFigures[];
}

/** Combines a resolved image and the plan for its missing layers. */
export function inspectionOf(
  image: string,
  paths: Pick<StorePaths, 'root'>,
  resolved: ResolvedImage,
  layers: readonly ImageLayer[],
  prepared: PreparedLayers,
): Omit<ImageInspection, 'stages'> {
  const { manifest, manifestDigest, indexDigest, configBytes, platform, platforms } = resolved;
  const planned = new Map(
    prepared.layers.map((layer, i) => [layer.diffId, { layer, figures: prepared.figures[i]! }]),
  );
  const seen = new Set<string>();
  const inspected = layers.map((layer) => {
    const first = !seen.has(layer.diffId);
    seen.add(layer.diffId);
    return inspectLayer(layer, first ? planned.get(layer.diffId) : undefined);
  });
  return {
    image,
    digest: manifestDigest,
    ...(indexDigest && { indexDigest }),
    mediaType: manifest.mediaType,
    platform,
    ...(platforms === undefined ? {} : { platforms }),
    store: paths.root,
    config: JSON.parse(configBytes.toString()) as unknown,
    layers: inspected,
    ...sumOf(inspected, 'fetchBytes', 'reuseBytes', 'resumedBytes', 'requests'),
  };
}

function inspectLayer(
  { descriptor, diffId, kind, cachedTarBytes }: ImageLayer,
  planned: { layer: KnownLayer; figures: PlannedFigures } | undefined,
): LayerInspection {
  const { digest, mediaType, sizeBytes } = descriptor;
  const names = { digest, diffId, mediaType, sizeBytes };
  if (planned === undefined) {
    return {
      ...names,
      format: kind.format,
      reason: kind.reason,
      tarBytes: cachedTarBytes ?? null,
      held: cachedTarBytes !== undefined,
      ...{ metadataBytes: 0, fetchBytes: 0, resumedBytes: 0, requests: 0 },
      reuseBytes: cachedTarBytes ?? 0,
    };
  }
  const { layer, figures } = planned;
  const { diskBytes: _, ...own } = figures;
  const entries = layer.metadata?.table.entries;
  return {
    ...names,
    format: layer.format,
    reason: reasonOf(kind, layer),
    held: false,
    ...own,
    ...(entries === undefined ? {} : { entries }),
  };
}

/** The reason from the descriptor, completed by what the blob itself says and by any problem. */
function reasonOf(
  { reason, location, problem }: ImageLayer['kind'],
  { metadata, failedBefore }: KnownLayer,
): string {
  if (problem !== undefined) return `${reason}; ${problem}`;
  if (failedBefore !== undefined) return `${reason}; ${failedBefore.message}`;
  if (location?.by !== 'footer') return reason;
  return metadata === undefined ? `${reason}, no footer` : `${reason}, footer`;
}

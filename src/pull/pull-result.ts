import type { LayerFormat } from '../format/layer-format.js';
import type { LayerFigures } from './layer.js';
import type { ImageLayer } from './missing-layers.js';

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
  readonly verified: true;
  /** Figures for benchmarks. */
  readonly measured: {
    /** From the last received content byte until every DiffID was verified. */
    readonly provenAfterMs: number;
    /** Share of the time the main thread's event loop was busy, 0 to 1. */
    readonly mainThreadBusy: number;
  };
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

type Totals = Pick<LayerResult, 'fetchedBytes' | 'reusedBytes' | 'resumedBytes' | 'requests'>;

/** The results of all layers and their totals; `figures` has those that were pulled, by DiffID. */
export function layerTotals(
  layers: readonly ImageLayer[],
  figures: ReadonlyMap<string, LayerFigures>,
): Totals & { readonly layers: readonly LayerResult[] } {
  const results = layerResults(layers, figures);
  const sum = (field: keyof Totals) => results.reduce((total, layer) => total + layer[field], 0);
  return {
    layers: results,
    fetchedBytes: sum('fetchedBytes'),
    reusedBytes: sum('reusedBytes'),
    resumedBytes: sum('resumedBytes'),
    requests: sum('requests'),
  };
}

function layerResults(
  layers: readonly ImageLayer[],
  figures: ReadonlyMap<string, LayerFigures>,
): LayerResult[] {
  const seen = new Set<string>();
  return layers.map(({ descriptor, diffId, kind, cachedTarBytes = 0 }) => {
    const { digest, mediaType, sizeBytes } = descriptor;
    const pulled = figures.get(diffId);
    const isFirst = pulled !== undefined && !seen.has(diffId);
    seen.add(diffId);
    const format = pulled?.format ?? kind.format;
    const own = isFirst ? pulled : { format, ...cachedFigures(pulled?.tarBytes ?? cachedTarBytes) };
    return { digest, diffId, mediaType, sizeBytes, ...own };
  });
}

/** Figures of a cached layer, or of one with the DiffID of a layer below it. */
function cachedFigures(tarBytes: number): Omit<LayerFigures, 'format'> {
  return { tarBytes, metadataBytes: 0, fetchedBytes: 0, reusedBytes: tarBytes, resumedBytes: 0, requests: 0 };
}

/** Starts the clocks of a pull. Returns a function that reads them. */
export function startMeasuring(): (
  provenAfterMs: number,
) => Pick<PullResult, 'durationMs' | 'verified' | 'measured'> {
  const startedMs = performance.now();
  const startedBusy = performance.eventLoopUtilization();
  return (provenAfterMs) => ({
    durationMs: Math.round(performance.now() - startedMs),
    verified: true,
    measured: {
      provenAfterMs,
      mainThreadBusy: performance.eventLoopUtilization(startedBusy).utilization,
    },
  });
}

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
  /** Body bytes of this blob received in this run, metadata, gaps and what was received twice included. */
  readonly fetchedBytes: number;
  /** Tar bytes found in the store by digest, or the whole tar of a layer that was there. */
  readonly reusedBytes: number;
  /** Tar bytes found true from a pull that was broken off. */
  readonly resumedBytes: number;
  /** GETs of this blob, retries included. */
  readonly requests: number;
}

export interface PullResult {
  readonly image: string;
  readonly digest: string;
  /** The digest of the index that led to it, when there was one. */
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
    /** From the last content byte received until every DiffID was proven. */
    readonly provenAfterMs: number;
    /** Share of the time the main thread's event loop was busy, 0 to 1. */
    readonly mainThreadBusy: number;
  };
}

/** The part of an image that is wanted. */
export interface PathSelection {
  /** In the image, links followed. */
  readonly path: string;
  /** Whether a directory is to be the root of what is exported; else it keeps its name. */
  readonly asRoot: boolean;
}

export interface PathResult extends PullResult {
  /** What to export: the layers of the image, of which the path is to be taken, or one that has nothing but what is at the path. */
  readonly diffIds: readonly string[];
  readonly isPicked: boolean;
}

/** What each layer of the image cost; `figures`, by DiffID, has those that were pulled. */
export function layerResults(
  layers: readonly ImageLayer[],
  figures: ReadonlyMap<string, LayerFigures>,
): LayerResult[] {
  const seen = new Set<string>();
  return layers.map(({ descriptor, diffId, kind, cachedTarBytes = 0 }) => {
    const { digest, mediaType, sizeBytes } = descriptor;
    const pulled = figures.get(diffId);
    const first = pulled !== undefined && !seen.has(diffId);
    seen.add(diffId);
    const format = pulled?.format ?? kind.format;
    const own = first ? pulled : { format, ...cachedFigures(pulled?.tarBytes ?? cachedTarBytes) };
    return { digest, diffId, mediaType, sizeBytes, ...own };
  });
}

/** Of a layer that was there, or that came with an equal one below it. */
function cachedFigures(tarBytes: number): Omit<LayerFigures, 'format'> {
  return { tarBytes, metadataBytes: 0, fetchedBytes: 0, reusedBytes: tarBytes, resumedBytes: 0, requests: 0 };
}

/** The totals over all layers. */
export function sumOf(
  layers: readonly LayerResult[],
): Pick<LayerResult, 'fetchedBytes' | 'reusedBytes' | 'resumedBytes' | 'requests'> {
  const sum = (field: 'fetchedBytes' | 'reusedBytes' | 'resumedBytes' | 'requests') =>
    layers.reduce((total, layer) => total + layer[field], 0);
  return {
    fetchedBytes: sum('fetchedBytes'),
    reusedBytes: sum('reusedBytes'),
    resumedBytes: sum('resumedBytes'),
    requests: sum('requests'),
  };
}

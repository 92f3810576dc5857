import type { LayerFigures } from './layer.js';
import type { LayerResult } from './options.js';
import type { ImageLayer } from './wanted.js';

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

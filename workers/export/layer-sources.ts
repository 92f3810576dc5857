import { BlockTags, PartTags } from '../../src/export/block-tags.js';
import {
  BlockCache,
  ExtentReader,
  type HeaderComparison,
  type HeaderLayer,
  HeaderSource,
  LayerSource,
} from '../../src/export/layer-source.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths, setup } from '../context.js';

let sources: readonly LayerSource[] | undefined;

/**
 * Returns the layers of the exported image, opened once a thread. `given` has them if the pool was
 * started before they were known.
 */
export function layerSources(given = setup.layers): readonly LayerSource[] {
  sources ??= openLayers(given).map(({ whole }) => whole.source);
  return sources;
}

/** Opens the same layers to read their headers; the caller then calls `comparison.finish`. */
export function headerSources(comparison: HeaderComparison, given = setup.layers): readonly HeaderSource[] {
  return openLayers(given).map((layer) => new HeaderSource(layer, comparison));
}

function openLayers(
  layers: typeof setup.layers,
): (HeaderLayer & { readonly whole: { readonly source: LayerSource } })[] {
  if (layers === undefined) throw new Error('this pool was started without layers');
  const packs = new PackReader(paths);
  const cache = new BlockCache();
  return layers.map(({ diffId, extents, tags: rows }) => {
    const reader = new ExtentReader(packs, ExtentList.fromRows(extents));
    const tags = new BlockTags(rows);
    const source = new LayerSource(cache, { diffId, reader, tags });
    return { diffId, reader, partTags: new PartTags(rows), whole: { tags, source } };
  });
}

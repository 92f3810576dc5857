import { BlockTags, PartTags } from '../../src/export/block-tags.js';
import { type HeaderComparison, type HeaderLayer, HeaderSource } from '../../src/export/header-source.js';
import { BlockCache, ExtentReader, LayerSource } from '../../src/export/layer-source.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths, setup } from '../context.js';

let sources: readonly LayerSource[] | undefined;

/** The layers of the image that this thread's pool exports, opened once a thread; `given`, if the pool was started without. */
export function layerSources(given = setup.layers): readonly LayerSource[] {
  sources ??= openLayers(given).map(({ whole }) => whole.source);
  return sources;
}

/** The same layers for one who reads their headers and then calls `finish` of `comparison`. */
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

import { BlockTags, PartTags } from '../../src/export/block-tags.js';
import { flatten } from '../../src/export/flatten.js';
import {
  BlockCache,
  ExtentReader,
  HeaderComparison,
  HeaderSource,
  LayerSource,
} from '../../src/export/layer-source.js';
import type { FlattenTask, TreeRows } from '../../src/pool/messages.js';
import { ExtentList } from '../../src/store/extents.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths, setup } from '../context.js';

/** Flattens the layers of the exported image, of which it reads the headers alone. */
export function flattenLayers({ intoFiles, path, layers }: FlattenTask): TreeRows {
  const comparison = new HeaderComparison();
  const sources = openLayers(layers).map((layer) => new HeaderSource(layer, comparison));
  try {
    const only = path === undefined ? undefined : { path, asRoot: intoFiles };
    return flatten(sources, { intoFiles, only });
  } finally {
    // Throws if the headers differ from what was hashed, which may be why they are malformed.
    comparison.finish();
  }
}

let sources: readonly LayerSource[] | undefined;

/**
 * Returns the layers of the exported image, opened once a thread. `given` has them if the pool was
 * started before they were known.
 */
export function layerSources(given = setup.layers): readonly LayerSource[] {
  sources ??= openLayers(given).map(({ whole }) => whole.source);
  return sources;
}

function openLayers(layers = setup.layers) {
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

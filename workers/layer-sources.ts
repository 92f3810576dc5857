import { BlockTags } from '../src/export/block-tags.js';
import { BlockCache, LayerSource } from '../src/export/layer-source.js';
import { PackReader } from '../src/store/pack-reader.js';
import { paths, setup } from './context.js';
import { extentsOf } from './extents.js';

let sources: readonly LayerSource[] | undefined;

/** The layers of the image that this thread's pool exports, opened once a thread. */
export function layerSources(): readonly LayerSource[] {
  if (setup.layers === undefined) throw new Error('this pool was started without layers');
  if (sources === undefined) {
    const packs = new PackReader(paths);
    const cache = new BlockCache();
    sources = setup.layers.map(({ diffId, extents, tags }) => {
      return new LayerSource(packs, cache, {
        diffId,
        extents: extentsOf(extents),
        tags: new BlockTags(tags),
      });
    });
  }
  return sources;
}

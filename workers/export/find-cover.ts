import { effectOf } from '../../src/export/layer-effect.js';
import type { FindCoverResult, FindCoverTask } from '../../src/pool/messages.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths } from '../context.js';
import { partialSource } from './partial-source.js';

/** The highest of some layers that hides from a path what lies below it, by their headers. */
export function findCover({ layers, names }: FindCoverTask): FindCoverResult {
  const packs = new PackReader(paths);
  try {
    for (let cover = layers.length - 1; cover >= 0; cover--) {
      const effect = effectOf(partialSource(packs, layers[cover]!), names);
      if (effect === 'unclear') return { cover: -1, isClear: false };
      if (effect === 'covers') return { cover, isClear: true };
    }
    return { cover: -1, isClear: true };
  } finally {
    packs.close();
  }
}

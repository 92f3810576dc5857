import { flatten } from '../../src/export/flatten.js';
import type { PickTreeTask, TreeRows } from '../../src/pool/messages.js';
import { PackReader } from '../../src/store/pack-reader.js';
import { paths } from '../context.js';
import { partialSource } from './partial-source.js';

/** The file system that is at a path of an image, by the headers of its layers. */
export function pickTree({ layers, path, asRoot }: PickTreeTask): TreeRows {
  const packs = new PackReader(paths);
  try {
    const sources = layers.map((layer) => partialSource(packs, layer));
    return flatten(sources, { intoFiles: asRoot, only: { path, asRoot } });
  } finally {
    packs.close();
  }
}

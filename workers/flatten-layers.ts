import { flatten } from '../src/export/flatten.js';
import type { TreeRows } from '../src/pool/messages.js';
import { layerSources } from './layer-sources.js';

/** The file system that the pool's layers make; of the layers only headers are read. */
export function flattenLayers(): TreeRows {
  return flatten(layerSources());
}

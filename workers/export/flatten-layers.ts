import { flatten } from '../../src/export/flatten.js';
import { HeaderComparison } from '../../src/export/header-source.js';
import type { FlattenTask, TreeRows } from '../../src/pool/messages.js';
import { headerSources } from './layer-sources.js';

/** The file system that the pool's layers make; of the layers only headers are read. */
export function flattenLayers({ intoFiles, path, layers }: FlattenTask): TreeRows {
  const comparison = new HeaderComparison();
  try {
    const only = path === undefined ? undefined : { path, asRoot: intoFiles };
    return flatten(headerSources(comparison, layers), { intoFiles, only });
  } finally {
    // Headers that make no sense may be none that were hashed: that is the reason then.
    comparison.finish();
  }
}

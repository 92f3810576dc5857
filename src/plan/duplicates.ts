import { DIGEST_BYTES } from '../format/digest.js';
import { DigestTable } from '../format/digest-table.js';
import type { LayerTable } from '../format/layer-table.js';

/**
 * For each content of a layer, where the same content comes first in this pull; layer -1 for the
 * first itself.
 */
export interface FirstOccurrences {
  readonly layer: Int32Array;
  readonly row: Int32Array;
}

/**
 * Returns the first occurrence of every content, one result for each layer. Contents are the same
 * when digest and size are. Digests forged to collide cannot make planning quadratic: `DigestTable`
 * gives up, and the content counts as new.
 */
export function findFirstOccurrences(tables: readonly LayerTable[]): FirstOccurrences[] {
  const contents = tables.reduce((sum, table) => sum + table.count, 0);
  const digests = new Uint8Array(contents * DIGEST_BYTES);
  const sizes = new Float64Array(contents);
  const layers = new Int32Array(contents);
  const starts = new Int32Array(tables.length);
  let start = 0;
  for (const [layer, table] of tables.entries()) {
    digests.set(table.digests, start * DIGEST_BYTES);
    sizes.set(table.sizeBytes, start);
    layers.fill(layer, start, start + table.count);
    starts[layer] = start;
    start += table.count;
  }
  const { firstRow } = new DigestTable(digests, sizes);
  return tables.map(({ count }, layer) => {
    const first = { layer: new Int32Array(count).fill(-1), row: new Int32Array(count) };
    for (let row = 0; row < count; row++) {
      const at = firstRow[starts[layer]! + row]!;
      if (at < 0 || at === starts[layer]! + row) continue;
      first.layer[row] = layers[at]!;
      first.row[row] = at - starts[layers[at]!]!;
    }
    return first;
  });
}

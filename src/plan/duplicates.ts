import { DIGEST_BYTES } from '../format/digest.js';
import type { LayerTable } from '../format/layer-table.js';

/** For each content of one layer where the same content occurs first in this pull; layer -1 when it is the first. */
export interface FirstOccurrences {
  readonly layer: Int32Array;
  readonly row: Int32Array;
}

/**
 * How many slots a look-up tries. A million honest digests at a load of one half need 34 to 47 in five runs. Digests
 * forged to collide must not make planning quadratic: what finds no slot counts as new and is fetched.
 */
const MAX_PROBES = 64;

/** An open-addressing table of contents, by the first four bytes of their digest (a sha256 needs no further mixing). */
interface Slots {
  readonly mask: number;
  readonly hash: Uint32Array;
  readonly layer: Int32Array;
  readonly row: Int32Array;
}

/**
 * The first occurrence of every content, one result a layer. Contents are the same when digest and size are.
 * Linear probing (Knuth, TAOCP vol. 3, 6.4): a Map of strings takes ten times the memory and time.
 */
export function findFirstOccurrences(tables: readonly LayerTable[]): FirstOccurrences[] {
  const slots = allocateSlots(tables.reduce((sum, table) => sum + table.count, 0));
  return tables.map((table, layer) => {
    const first = { layer: new Int32Array(table.count).fill(-1), row: new Int32Array(table.count) };
    for (let row = 0; row < table.count; row++) {
      const slot = findOrInsert(slots, tables, layer, row);
      if (slot < 0) continue;
      first.layer[row] = slots.layer[slot]!;
      first.row[row] = slots.row[slot]!;
    }
    return first;
  });
}

function allocateSlots(contents: number): Slots {
  let capacity = 16;
  while (capacity < contents * 2) capacity *= 2;
  return {
    mask: capacity - 1,
    hash: new Uint32Array(capacity),
    layer: new Int32Array(capacity).fill(-1),
    row: new Int32Array(capacity),
  };
}

/** The slot of an equal content that came before, or -1 after noting this one as the first. */
function findOrInsert(slots: Slots, tables: readonly LayerTable[], layer: number, row: number): number {
  const table = tables[layer]!;
  const hash = digestHash(table.digests, row);
  for (let probe = 0; probe < MAX_PROBES; probe++) {
    const slot = (hash + probe) & slots.mask;
    const other = slots.layer[slot]!;
    if (other < 0) {
      slots.hash[slot] = hash;
      slots.layer[slot] = layer;
      slots.row[slot] = row;
      return -1;
    }
    if (slots.hash[slot] === hash && sameContent(table, row, tables[other]!, slots.row[slot]!)) return slot;
  }
  return -1;
}

function digestHash(digests: Uint8Array, row: number): number {
  const at = row * DIGEST_BYTES;
  return (digests[at]! | (digests[at + 1]! << 8) | (digests[at + 2]! << 16) | (digests[at + 3]! << 24)) >>> 0;
}

function sameContent(a: LayerTable, rowA: number, b: LayerTable, rowB: number): boolean {
  if (a.sizeBytes[rowA] !== b.sizeBytes[rowB]) return false;
  const atA = rowA * DIGEST_BYTES;
  const atB = rowB * DIGEST_BYTES;
  for (let i = 0; i < DIGEST_BYTES; i++) {
    if (a.digests[atA + i] !== b.digests[atB + i]) return false;
  }
  return true;
}

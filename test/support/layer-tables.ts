import { DIGEST_BYTES } from '../../src/format/digest.js';
import { allocateTable, type LayerTable } from '../../src/format/layer-table.js';
import type { LayerToPlan, ResumedPiece } from '../../src/plan/layer-parts.js';

/** A content: its range [start, end) of the blob, its tar offset and its size. */
export interface ContentRow {
  /** Contents with the same name have the same digest. */
  readonly name: string | number;
  readonly blob: readonly [number, number];
  readonly tarStart: number;
  readonly sizeBytes: number;
  /** Where the chunks begin, the first included. */
  readonly chunks?: readonly { readonly blobStart: number; readonly tarStart: number }[];
}

/** A layer table of these contents. */
export function tableOf(
  contents: readonly ContentRow[],
  dataEnd: number,
  tarBytes: number,
  more: Partial<Pick<LayerTable, 'layout' | 'compression'>> = {},
): LayerTable {
  const chunks = contents.reduce((sum, content) => sum + (content.chunks?.length ?? 0), 0);
  const table = allocateTable({ count: contents.length, chunks, dataEnd, tarBytes, ...more });
  let chunk = 0;
  for (const [row, content] of contents.entries()) {
    table.digests.set(fakeDigest(content.name), row * DIGEST_BYTES);
    table.blobStart[row] = content.blob[0];
    table.blobEnd[row] = content.blob[1];
    table.tarStart[row] = content.tarStart;
    table.sizeBytes[row] = content.sizeBytes;
    for (const { blobStart, tarStart } of content.chunks ?? []) {
      table.chunkBlobStart[chunk] = blobStart;
      table.chunkTarStart[chunk] = tarStart;
      chunk++;
    }
    table.chunkFirst[row + 1] = chunk;
  }
  return table;
}

/** 32 bytes that only this name has; the first four are shared by many names, so that look-ups have to compare. */
function fakeDigest(name: string | number): Uint8Array {
  const bytes = new Uint8Array(DIGEST_BYTES);
  Buffer.from(String(name).padStart(28, '.')).copy(bytes, 4);
  bytes[0] = bytes[31]! & 3;
  return bytes;
}

/** Returns the table with these contents cached in pack 0 and these pieces resumed; by default none. */
export function wantOf(
  table: LayerTable,
  more: { held?: readonly number[]; resumed?: readonly ResumedPiece[] } = {},
): LayerToPlan {
  const chunks = table.chunkBlobStart.length;
  const cachedPack = new Int32Array(table.count).fill(-1);
  for (const row of more.held ?? []) cachedPack[row] = 0;
  return {
    table,
    cachedPack,
    cachedOffset: table.tarStart.map((offset) => offset * 2),
    chunkCachedPack: new Int32Array(chunks).fill(-1),
    chunkCachedOffset: new Float64Array(chunks),
    resumed: more.resumed ?? [],
  };
}

/** `count` contents of one size with gaps of one size before each, as a writer lays them out; all differ. */
export function evenTable(shape: {
  count: number;
  blobBytes: number;
  sizeBytes: number;
  gapBlobBytes: number;
  gapTarBytes: number;
  firstName?: number;
}): LayerTable {
  const blobStep = shape.blobBytes + shape.gapBlobBytes;
  const tarStep = shape.sizeBytes + shape.gapTarBytes;
  const rows = Array.from({ length: shape.count }, (_, row) => {
    const blobStart = row * blobStep + shape.gapBlobBytes;
    return {
      name: row + (shape.firstName ?? 0),
      blob: [blobStart, blobStart + shape.blobBytes] as const,
      tarStart: row * tarStep + shape.gapTarBytes,
      sizeBytes: shape.sizeBytes,
    };
  });
  return tableOf(rows, shape.count * blobStep + shape.gapBlobBytes, shape.count * tarStep + 1024);
}

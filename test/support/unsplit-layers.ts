import { DIGEST_BYTES } from '../../src/format/digest.js';
import { allocateTable, type LayerTable } from '../../src/format/layer-table.js';
import { buildUnsplitTable } from '../../src/format/unsplit-table-builder.js';
import { cutUp } from './chunked-layers.js';
import {
  dialectLayers,
  type ReadLayer,
  readOldLayer,
  readStargzLayer,
  type StoredLayer,
} from './dialect-layers.js';
import { type FormatOptions, formatWriter } from './layers/sample-format.js';

/** The formats that have a TOC and no tar-split. */
export const UNSPLIT_FORMATS = ['zstd:chunked-old', 'stargz-zstd', 'estargz'] as const;
export type UnsplitFormat = (typeof UNSPLIT_FORMATS)[number];

/** A layer without tar-split: all that is true of it, and the table that its TOC makes. */
export interface UnsplitLayer extends ReadLayer {
  readonly name: string;
  readonly blob: Buffer;
  readonly dataEnd: number;
  readonly table: LayerTable;
}

/** Writes a tar so. */
export async function writeUnsplit(
  format: UnsplitFormat,
  tar: Buffer,
  options: FormatOptions = {},
): Promise<UnsplitLayer> {
  const written: Buffer[] = [];
  const { mediaType, write } = formatWriter(format, options);
  const layer = await write(
    cutUp(tar, 10_000),
    (bytes) => written.push(bytes),
    () => {},
  );
  return readUnsplit(format, { name: format, blob: Buffer.concat(written), mediaType, ...layer });
}

/** Layers that other programs wrote. */
export async function unsplitFixtures(): Promise<UnsplitLayer[]> {
  const images = [
    ['old', 'zstd:chunked-old'],
    ['nerdctl', 'stargz-zstd'],
    ['estargz', 'estargz'],
  ] as const;
  const layers = images.flatMap(([ref, format]) =>
    dialectLayers(ref).map((layer) => readUnsplit(format, layer)),
  );
  return Promise.all(layers);
}

async function readUnsplit(format: UnsplitFormat, layer: StoredLayer): Promise<UnsplitLayer> {
  const { name, blob } = layer;
  const read = format === 'zstd:chunked-old' ? await readOldLayer(layer) : await readStargzLayer(layer);
  const compression = format === 'estargz' ? 'gzip' : 'zstd';
  // Where the footer says that the TOC begins: 16 hex digits, or the position behind a skippable frame's header.
  const dataEnd =
    compression === 'gzip'
      ? Number.parseInt(blob.toString('latin1', blob.length - 35, blob.length - 19), 16)
      : Number(blob.readBigUInt64LE(blob.length - 40)) - 8;
  const table = buildUnsplitTable({ toc: Buffer.from(read.toc), dataEnd, compression });
  return { ...read, name, blob, dataEnd, table };
}

/** The layer's table with the chunks of all contents as rows, which the builder keeps only of large ones. */
export function withChunkRows({ table, entries }: UnsplitLayer): LayerTable {
  const parts = entries.filter(({ offset }) => offset !== undefined);
  const contents = parts.flatMap(({ type }, i) => (type === 'reg' ? [i] : []));
  const owned = contents.map((from, i) => {
    const own = parts.slice(from, contents[i + 1]);
    return own.length > 1 ? own : [];
  });
  const chunks = owned.reduce((sum, own) => sum + own.length, 0);
  const full = allocateTable({ ...table, chunks });
  for (const name of ['digests', 'blobStart', 'blobEnd', 'tarStart', 'sizeBytes'] as const) {
    full[name].set(table[name]);
  }
  let chunk = 0;
  for (const [row, own] of owned.entries()) {
    for (const { offset, chunkOffset = 0, chunkDigest } of own) {
      full.chunkBlobStart[chunk] = offset!;
      full.chunkTarStart[chunk] = table.tarStart[row]! + chunkOffset;
      full.chunkDigests.set(Buffer.from(chunkDigest!.slice('sha256:'.length), 'hex'), chunk * DIGEST_BYTES);
      chunk += 1;
    }
    full.chunkFirst[row + 1] = chunk;
  }
  return full;
}

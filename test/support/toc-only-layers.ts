import { DIGEST_BYTES } from '../../src/format/digest.js';
import { allocateTable, type LayerTable } from '../../src/format/layer-table.js';
import { buildTocOnlyTable } from '../../src/format/toc-only-table-builder.js';
import { cutUp } from './chunked-layers.js';
import {
  dialectLayers,
  type ReadLayer,
  readOldLayer,
  readStargzLayer,
  type StoredLayer,
} from './dialect-layers.js';
import { type FormatOptions, formatWriter } from './layers/sample-image.js';

/** The formats that have a TOC and no tar-split. */
export const TOC_ONLY_FORMATS = ['zstd:chunked-old', 'stargz-zstd', 'estargz'] as const;
export type TocOnlyFormat = (typeof TOC_ONLY_FORMATS)[number];

/** A layer without tar-split: all that is true of it, and the table that its TOC makes. */
export interface TocOnlyLayer extends ReadLayer {
  readonly name: string;
  readonly blob: Buffer;
  readonly dataEnd: number;
  readonly table: LayerTable;
}

/** Writes a tar in one of these formats. */
export async function writeTocOnly(
  format: TocOnlyFormat,
  tar: Buffer,
  options: FormatOptions = {},
): Promise<TocOnlyLayer> {
  const written: Buffer[] = [];
  const { mediaType, write } = formatWriter(format, options);
  const layer = await write(
    cutUp(tar, 10_000),
    (bytes) => written.push(bytes),
    () => {},
  );
  return readTocOnly(format, { name: format, blob: Buffer.concat(written), mediaType, ...layer });
}

/** Layers that other programs wrote. */
export async function tocOnlyFixtures(): Promise<TocOnlyLayer[]> {
  const images = [
    ['old', 'zstd:chunked-old'],
    ['nerdctl', 'stargz-zstd'],
    ['estargz', 'estargz'],
  ] as const;
  const layers = images.flatMap(([ref, format]) =>
    dialectLayers(ref).map((layer) => readTocOnly(format, layer)),
  );
  return Promise.all(layers);
}

async function readTocOnly(format: TocOnlyFormat, layer: StoredLayer): Promise<TocOnlyLayer> {
  const { name, blob } = layer;
  const read = format === 'zstd:chunked-old' ? await readOldLayer(layer) : await readStargzLayer(layer);
  const compression = format === 'estargz' ? 'gzip' : 'zstd';
  // Where the footer says that the TOC begins: 16 hex digits, or the position behind a skippable frame's header.
  const dataEnd =
    compression === 'gzip'
      ? Number.parseInt(blob.toString('latin1', blob.length - 35, blob.length - 19), 16)
      : Number(blob.readBigUInt64LE(blob.length - 40)) - 8;
  const table = buildTocOnlyTable({ toc: Buffer.from(read.toc), dataEnd, compression });
  return { ...read, name, blob, dataEnd, table };
}

/** The layer's table with the chunks of all contents as rows, which the builder keeps only of large ones. */
export function withChunkRows({ table, entries }: TocOnlyLayer): LayerTable {
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

import type { LayerTable } from '../../src/format/layer-table.js';
import { buildUnsplitTable } from '../../src/format/unsplit-table-builder.js';
import { type FormatOptions, formatWriter } from '../../src/sandbox/sample-format.js';
import { cutUp } from './chunked-layers.js';
import {
  dialectLayers,
  type ReadLayer,
  readOldLayer,
  readStargzLayer,
  type StoredLayer,
} from './dialect-layers.js';

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

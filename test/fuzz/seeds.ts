import { decompress } from '@mongodb-js/zstd';
import { type ChunkedPositions, parseChunkedAnnotations } from '../../src/format/metadata-position.js';
import { formatWriter, type SampleFormat } from '../support/layers/sample-image.js';
import { type Entry, tarOf } from '../support/tars.js';

/** A layer as the sample writer makes it. */
interface SeedLayer {
  readonly blob: Buffer;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Entries of every type and with every form of name, small. */
export const ENTRIES: readonly Entry[] = [
  { type: '5', name: 'etc/' },
  { name: 'etc/hostname', content: 'zpull\n' },
  { name: 'etc/empty' },
  { type: '2', name: 'etc/link', linkName: 'hostname' },
  { type: '1', name: 'etc/hard', linkName: 'etc/hostname' },
  { type: '3', name: 'dev/null', devMajor: 1, devMinor: 3 },
  { type: '6', name: 'run/fifo' },
  { name: `long/${'directory/'.repeat(12)}file`, content: 'x'.repeat(600), mtimeNanos: 5 },
  { name: 'wörter/漢字', content: 'y'.repeat(1024), uid: 3_000_000 },
  { name: 'etc/.wh.gone' },
  { name: 'etc/.wh..wh..opq' },
];

/** A tar of all of them. */
export const TAR = tarOf(...ENTRIES);

/** The tar as a layer of this format. */
export async function layerOf(format: SampleFormat): Promise<SeedLayer> {
  const pieces: Buffer[] = [];
  const { write } = formatWriter(format, {});
  const { annotations } = await write(
    [TAR],
    (bytes) => pieces.push(Buffer.from(bytes)),
    () => {},
  );
  return { blob: Buffer.concat(pieces), annotations };
}

/** A zstd:chunked layer with its metadata decoded. */
export interface ChunkedSeed extends SeedLayer {
  readonly positions: ChunkedPositions;
  readonly toc: Buffer;
  readonly tarSplit: Buffer;
}

/** The tar as zstd:chunked with tar-split. */
export async function chunkedLayer(): Promise<ChunkedSeed> {
  const layer = await layerOf('zstd:chunked');
  const positions = parseChunkedAnnotations(layer.annotations, layer.blob.length)!;
  const { toc, tarSplit } = positions;
  return {
    ...layer,
    positions,
    toc: await decompress(layer.blob.subarray(toc.start, toc.end)),
    tarSplit: await decompress(layer.blob.subarray(tarSplit!.start, tarSplit!.end)),
  };
}

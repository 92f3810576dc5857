import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { decompress } from '@mongodb-js/zstd';
import type { Sample } from './sample.js';

/** A chunk of a content as its TOC states it; most contents are one. */
interface Chunk {
  /** Digest of the whole content. */
  readonly digest: string;
  readonly sizeBytes: number;
  readonly blobStart: number;
  readonly blobEnd: number;
  readonly endsContent: boolean;
}

/** What the bench must know of a layer, read apart from the code that it measures. */
export interface LayerToc {
  readonly digest: string;
  readonly diffId: string;
  readonly blobPath: string;
  readonly blobBytes: number;
  /** TOC and, if there is one, tar-split, compressed. */
  readonly metadataBytes: number;
  /** Where the frames of the tar end, or the TOC's own begin. */
  readonly dataEnd: number;
  /** Whether a content's last frame goes on with the tar's headers behind it. */
  readonly gapsWithin: boolean;
  /** In blob order. */
  readonly chunks: readonly Chunk[];
}

interface Descriptor {
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
}

interface TocEntry {
  readonly type: string;
  readonly digest?: string;
  readonly size?: number;
  readonly offset?: number;
  readonly endOffset?: number;
  readonly chunkSize?: number;
}

const PREFIXES = ['io.github.containers.zstd-chunked.', 'io.containers.zstd-chunked.'] as const;
const REF_NAME = 'org.opencontainers.image.ref.name';
/** A skippable frame's header stands before the TOC (RFC 8878, section 3.1.2). */
const SKIPPABLE_HEADER_BYTES = 8;
const STARGZ_FOOTER_BYTES = 51;

/** A layer's descriptor, its DiffID, and where its blob lies. */
interface LayerFile {
  readonly descriptor: Descriptor;
  readonly diffId: string;
  readonly blobPath: string;
}

/** The layers of a sample, lowest first. @throws Error when the layout has no such image */
export function readLayers({ layoutDir, ref }: Sample): LayerFile[] {
  const pathOf = (digest: string) => join(layoutDir, 'blobs', ...digest.split(':'));
  const readJson = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));
  const index = readJson(join(layoutDir, 'index.json')) as { manifests: Descriptor[] };
  const named = index.manifests.find(({ annotations }) => annotations?.[REF_NAME] === ref);
  if (named === undefined) throw new Error(`${layoutDir} has no image ${ref}`);
  const manifest = readJson(pathOf(named.digest)) as { config: Descriptor; layers: Descriptor[] };
  const config = readJson(pathOf(manifest.config.digest)) as { rootfs: { diff_ids: string[] } };
  return manifest.layers.map((descriptor, i) => {
    return { descriptor, diffId: config.rootfs.diff_ids[i]!, blobPath: pathOf(descriptor.digest) };
  });
}

/** The same with their tables of contents. */
export function readLayerTocs(sample: Sample): Promise<LayerToc[]> {
  return Promise.all(readLayers(sample).map(readLayer));
}

async function readLayer({ descriptor, diffId, blobPath }: LayerFile): Promise<LayerToc> {
  const { dataEnd, metadataBytes, toc } = await readToc(descriptor, blobPath);
  const { entries } = JSON.parse(toc) as { entries: TocEntry[] };
  const chunks = [...chunksOf(entries, dataEnd)];
  const gapsWithin = entries.some(
    ({ type, size = 0, endOffset }) => type === 'reg' && size > 0 && !endOffset,
  );
  const { digest, size: blobBytes } = descriptor;
  return { digest, diffId, blobPath, blobBytes, metadataBytes, dataEnd, gapsWithin, chunks };
}

async function readToc(
  { size, annotations = {} }: Descriptor,
  blobPath: string,
): Promise<Pick<LayerToc, 'dataEnd' | 'metadataBytes'> & { toc: string }> {
  const prefix = PREFIXES.find((name) => `${name}manifest-position` in annotations);
  if (prefix === undefined) return readStargzToc(size, blobPath);
  const positions = (name: string) => (annotations[prefix + name] ?? '').split(':').map(Number);
  const [tocStart = 0, tocBytes = 0] = positions('manifest-position');
  const [, tarSplitBytes = 0] = positions('tarsplit-position');
  const toc = await decompress(readRange(blobPath, tocStart, tocStart + tocBytes));
  const metadataBytes = tocBytes + tarSplitBytes;
  return { dataEnd: tocStart - SKIPPABLE_HEADER_BYTES, metadataBytes, toc: toc.toString() };
}

/** The TOC of an eStargz blob: a tar entry in a gzip member, to which the last 51 bytes lead. */
function readStargzToc(size: number, blobPath: string): Awaited<ReturnType<typeof readToc>> {
  const footer = readRange(blobPath, size - STARGZ_FOOTER_BYTES, size).toString('latin1');
  const dataEnd = Number.parseInt(/([0-9a-f]{16})STARGZ/.exec(footer)?.[1] ?? '', 16);
  const tar = gunzipSync(readRange(blobPath, dataEnd, size));
  const tocBytes = Number.parseInt(tar.toString('latin1', 124, 135), 8);
  return { dataEnd, metadataBytes: size - dataEnd, toc: tar.toString('utf8', 512, 512 + tocBytes) };
}

/** The chunks in the order of the entries, which is that of the blob. */
function* chunksOf(entries: readonly TocEntry[], dataEnd: number): Generator<Chunk> {
  const parts = entries.filter(({ type, size = 0 }) => type === 'chunk' || (type === 'reg' && size > 0));
  let digest = '';
  let left = 0;
  for (const [
    row,
    { type, size = 0, offset: blobStart = 0, endOffset, chunkSize, ...part },
  ] of parts.entries()) {
    if (type === 'reg') {
      digest = part.digest ?? '';
      left = size;
    }
    const next = parts[row + 1];
    const endsContent = next?.type !== 'chunk';
    const sizeBytes = chunkSize ?? left;
    left -= sizeBytes;
    // Without an end of its own a frame ends where the next one begins.
    const blobEnd = (endsContent ? lastEnd(parts, row) : undefined) ?? next?.offset ?? dataEnd;
    yield { digest, sizeBytes, blobStart, blobEnd, endsContent };
  }
}

/** Where the content ends whose last chunk this is, if its first says so. */
function lastEnd(parts: readonly TocEntry[], row: number): number | undefined {
  let first = row;
  while (parts[first]?.type === 'chunk') first -= 1;
  return parts[first]?.endOffset;
}

/** Bytes [start, end) of a file. */
function readRange(path: string, start: number, end: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(end - start);
  const file = openSync(path, 'r');
  try {
    if (readSync(file, bytes, 0, bytes.length, start) !== bytes.length) throw new Error(`${path} is cut off`);
  } finally {
    closeSync(file);
  }
  return bytes;
}

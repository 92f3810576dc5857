import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
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
  /** TOC and tar-split, compressed. */
  readonly metadataBytes: number;
  /** Where the frames of the tar end. */
  readonly dataEnd: number;
  /** In blob order. */
  readonly chunks: readonly Chunk[];
}

interface Descriptor {
  readonly digest: string;
  readonly size: number;
  readonly annotations: Readonly<Record<string, string>>;
}

interface TocEntry {
  readonly type: string;
  readonly digest?: string;
  readonly size?: number;
  readonly offset?: number;
  readonly endOffset?: number;
  readonly chunkSize?: number;
}

const PREFIX = 'io.github.containers.zstd-chunked.';
const REF_NAME = 'org.opencontainers.image.ref.name';
/** A skippable frame's header stands before the TOC (RFC 8878, section 3.1.2). */
const SKIPPABLE_HEADER_BYTES = 8;

/** The layers of a sample, lowest first. @throws Error when the layout has no such image */
export async function readLayerTocs({ layoutDir, ref }: Sample): Promise<LayerToc[]> {
  const pathOf = (digest: string) => join(layoutDir, 'blobs', ...digest.split(':'));
  const readJson = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));
  const index = readJson(join(layoutDir, 'index.json')) as { manifests: Descriptor[] };
  const named = index.manifests.find(({ annotations }) => annotations[REF_NAME] === ref);
  if (named === undefined) throw new Error(`${layoutDir} has no image ${ref}`);
  const manifest = readJson(pathOf(named.digest)) as { config: Descriptor; layers: Descriptor[] };
  const config = readJson(pathOf(manifest.config.digest)) as { rootfs: { diff_ids: string[] } };
  return Promise.all(
    manifest.layers.map((layer, i) => readLayer(layer, config.rootfs.diff_ids[i]!, pathOf(layer.digest))),
  );
}

async function readLayer(layer: Descriptor, diffId: string, blobPath: string): Promise<LayerToc> {
  const positions = (name: string) => (layer.annotations[PREFIX + name] ?? '').split(':').map(Number);
  const [tocStart = 0, tocBytes = 0] = positions('manifest-position');
  const [, tarSplitBytes = 0] = positions('tarsplit-position');
  const toc = await decompress(readRange(blobPath, tocStart, tocStart + tocBytes));
  const { entries } = JSON.parse(toc.toString()) as { entries: TocEntry[] };
  return {
    digest: layer.digest,
    diffId,
    blobPath,
    blobBytes: layer.size,
    metadataBytes: tocBytes + tarSplitBytes,
    dataEnd: tocStart - SKIPPABLE_HEADER_BYTES,
    chunks: [...chunksOf(entries)],
  };
}

/** The chunks in the order of the entries, which is that of the blob. */
function* chunksOf(entries: readonly TocEntry[]): Generator<Chunk> {
  for (let row = 0; row < entries.length; row += 1) {
    const { type, digest = '', size = 0, endOffset = 0 } = entries[row]!;
    if (type !== 'reg' || size === 0) continue;
    let more = true;
    for (let part = row; more; part += 1) {
      const { offset: blobStart = 0, chunkSize = size } = entries[part]!;
      const next = entries[part + 1];
      more = next?.type === 'chunk';
      const blobEnd = more ? (next?.offset ?? 0) : endOffset;
      yield { digest, sizeBytes: chunkSize, blobStart, blobEnd, endsContent: !more };
    }
  }
}

/** Bytes [start, end) of a file. */
export function readRange(path: string, start: number, end: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(end - start);
  const file = openSync(path, 'r');
  try {
    if (readSync(file, bytes, 0, bytes.length, start) !== bytes.length) throw new Error(`${path} is cut off`);
  } finally {
    closeSync(file);
  }
  return bytes;
}

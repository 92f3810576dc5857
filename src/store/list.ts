import { type Digest, digestOfBytes } from '../format/digest.js';
import {
  bytesOf,
  commonBytes,
  containingRun,
  type ExtentList,
  neededRuns,
  type Runs,
  sharedRuns,
} from './extents.js';
import { getBlob, type ImageRecord, listImageRecords } from './image-record.js';
import { listLayerFiles, readLayerRecord, readRecordFile } from './layer-record.js';
import {
  hasRun,
  IndexScan,
  isContent,
  listIndexedPacks,
  NO_BLOB,
  pieceOf,
  type RecordType,
} from './pack-index.js';
import { openStoreToRead, type PackId, type StoreOptions, type StorePaths } from './paths.js';

/** A complete image. */
export interface ListedImage {
  readonly image: string;
  readonly digest: string;
  readonly platform: string;
  /** Bytes of packs that its layers use, each counted once. */
  readonly sizeBytes: number;
  /** Those of them that other images in the store use too. */
  readonly sharedBytes: number;
  /** ISO 8601; exact to an hour. */
  readonly lastUsed: string;
}

/** A layer blob of which an interrupted or running pull has stored bytes. */
export interface BrokenOffBlob {
  readonly blob: string;
  /** Bytes of the blob that need not be fetched again. */
  readonly bytes: number;
}

/** What a store has. */
export interface StoreListing {
  readonly images: readonly ListedImage[];
  readonly brokenOff: readonly BrokenOffBlob[];
}

/**
 * Lists the complete images of a store, and blobs that the next pull can continue. Writes nothing;
 * an absent store is empty.
 * @throws PullError as `storageError`
 */
export function listStore(
  options: StoreOptions & {
    /** Called for each image of which something is missing; a pull fetches only that. */
    readonly incomplete?: (image: string, platform: string) => void;
  },
): StoreListing {
  const paths = openStoreToRead(options.store, options.warn);
  const complete: { record: ImageRecord; runs: ReadonlyMap<PackId, Runs> }[] = [];
  for (const record of listImageRecords(paths)) {
    const extents = cachedExtents(paths, record);
    if (extents === undefined) options.incomplete?.(record.reference, record.platform);
    else complete.push({ record, runs: neededRuns(extents) });
  }
  const shared = sharedByImages(complete.map(({ runs }) => runs));
  return {
    images: complete.map(({ record, runs }) => ({
      image: record.reference,
      digest: record.manifestDigest,
      platform: record.platform,
      sizeBytes: sumOf(runs, (_, ofPack) => bytesOf(ofPack)),
      sharedBytes: sumOf(runs, (id, ofPack) => commonBytes(ofPack, shared.get(id)!)),
      lastUsed: new Date(record.lastUsedMs).toISOString(),
    })),
    brokenOff: brokenOffBlobs(paths),
  };
}

function sumOf(runs: ReadonlyMap<PackId, Runs>, bytes: (id: PackId, ofPack: Runs) => number): number {
  return [...runs].reduce((sum, [id, ofPack]) => sum + bytes(id, ofPack), 0);
}

/**
 * Returns the extents of an image's layers, or undefined if a layer, the manifest or the config is
 * missing.
 */
function cachedExtents(paths: StorePaths, record: ImageRecord): ExtentList[] | undefined {
  const { diffIds, manifestDigest, configDigest } = record;
  const hasBlobs = [manifestDigest, configDigest].every((digest) => getBlob(paths, digest) !== undefined);
  if (!hasBlobs) return undefined;
  const extents: ExtentList[] = [];
  for (const diffId of new Set(diffIds)) {
    const layer = readLayerRecord(paths, diffId);
    if (layer === undefined) return undefined;
    extents.push(layer.extents);
  }
  return extents;
}

function sharedByImages(images: readonly ReadonlyMap<PackId, Runs>[]): Map<PackId, Runs> {
  const packs = new Set(images.flatMap((runs) => [...runs.keys()]));
  return new Map([...packs].map((id) => [id, sharedRuns(images.flatMap((runs) => runs.get(id) ?? []))]));
}

/** Returns blobs with pieces in unsealed packs that no layer record uses. */
function brokenOffBlobs(paths: StorePaths): BrokenOffBlob[] {
  const recorded = listLayerFiles(paths).flatMap(
    ({ path, diffId }) => readRecordFile(path, diffId)?.extents ?? [],
  );
  const needed = neededRuns(recorded);
  const indexes = new IndexScan(paths);
  const { block } = indexes;
  const blobs = new Map<Digest, Map<number, number>>();
  for (const pack of listIndexedPacks(paths)) {
    if (pack.sealed) continue;
    const runs = needed.get(pack.id) ?? new Float64Array(0);
    const isPiece = (type: RecordType) => !isContent(type);
    indexes.read(pack, isPiece, (_, at) => {
      const { blobDigest, blobStart, blobLength, packOffset, lengthBytes } = pieceOf(block, at);
      if (NO_BLOB.equals(blobDigest) || !hasRun(pack, packOffset, lengthBytes)) return;
      if (containingRun(runs, packOffset, packOffset + lengthBytes) >= 0) return;
      const digest = digestOfBytes(blobDigest);
      blobs.set(digest, (blobs.get(digest) ?? new Map()).set(blobStart, blobLength));
    });
  }
  return [...blobs]
    .map(([blob, pieces]) => ({ blob, bytes: [...pieces.values()].reduce((sum, length) => sum + length, 0) }))
    .sort((a, b) => (a.blob < b.blob ? -1 : 1));
}

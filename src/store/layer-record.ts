import { hash } from 'node:crypto';
import { join } from 'node:path';
import { moveFile, syncDirectory, writeAtomically } from '../files/atomic-file.js';
import { listNames } from '../files/guarded-directory.js';
import { readIfExists, statFile, unlessUnfit } from '../files/open-file.js';
import { ifExists, isDenied } from '../files/storage-error.js';
import { DIGEST_BYTES, type Digest, digestBytes, digestOfBytes } from '../format/digest.js';
import { ExtentList, overlapsRun } from './extents.js';
import { readBadRuns, syncPacks } from './pack-files.js';
import { readU64, writeU64 } from './pack-index.js';
import {
  damagedRecordPath,
  layerRecordPath,
  PACK_ID_BYTES,
  type PackId,
  packPath,
  type StorePaths,
} from './paths.js';

/** A verified layer: its extents, concatenated, are the tar that hashes to the DiffID. */
export interface LayerRecord {
  readonly diffId: Digest;
  readonly extents: ExtentList;
}

/** Seven letters and the version of the format. */
const MAGIC = Buffer.from('zplayer\x01', 'latin1');
const DIFF_ID_AT = MAGIC.length;
const TAR_BYTES_AT = DIFF_ID_AT + DIGEST_BYTES;
const PACK_COUNT_AT = TAR_BYTES_AT + 8;
const EXTENT_COUNT_AT = PACK_COUNT_AT + 4;
const HEADER_BYTES = EXTENT_COUNT_AT + 4;
const EXTENT_BYTES = 20;

/** 6 million extents, fifty times those of a layer with 120,000 scattered files. */
const MAX_RECORD_BYTES = 128 * 2 ** 20;

/** Encodes a layer record (docs/store-format.md). */
export function encodeLayerRecord({ diffId, extents }: LayerRecord): Buffer {
  const { packs, pack, offset, count } = extents.toRows();
  const extentsAt = HEADER_BYTES + packs.length * PACK_ID_BYTES;
  const end = extentsAt + count * EXTENT_BYTES;
  const bytes = Buffer.alloc(end + DIGEST_BYTES);
  MAGIC.copy(bytes);
  digestBytes(diffId).copy(bytes, DIFF_ID_AT);
  writeU64(bytes, TAR_BYTES_AT, extents.lengthBytes);
  bytes.writeUInt32LE(packs.length, PACK_COUNT_AT);
  bytes.writeUInt32LE(count, EXTENT_COUNT_AT);
  packs.forEach((id, i) => {
    bytes.write(id, HEADER_BYTES + i * PACK_ID_BYTES, 'hex');
  });
  for (let i = 0, at = extentsAt; i < count; i++, at += EXTENT_BYTES) {
    bytes.writeUInt32LE(pack[i]!, at);
    writeU64(bytes, at + 4, offset[i]!);
    writeU64(bytes, at + 12, extents.lengthAt(i));
  }
  hash('sha256', bytes.subarray(0, end), 'buffer').copy(bytes, end);
  return bytes;
}

/** Decodes a layer record. Returns undefined if it is damaged, inconsistent or not of `diffId`. */
export function decodeLayerRecord(bytes: Buffer, diffId: Digest): LayerRecord | undefined {
  if (bytes.length < HEADER_BYTES + DIGEST_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC))
    return undefined;
  const packCount = bytes.readUInt32LE(PACK_COUNT_AT);
  const count = bytes.readUInt32LE(EXTENT_COUNT_AT);
  const extentsAt = HEADER_BYTES + packCount * PACK_ID_BYTES;
  const end = extentsAt + count * EXTENT_BYTES;
  if (bytes.length !== end + DIGEST_BYTES) return undefined;
  if (!hash('sha256', bytes.subarray(0, end), 'buffer').equals(bytes.subarray(end))) return undefined;
  if (digestOfBytes(bytes.subarray(DIFF_ID_AT)) !== diffId) return undefined;
  const packs: PackId[] = [];
  for (let at = HEADER_BYTES; at < extentsAt; at += PACK_ID_BYTES) {
    packs.push(bytes.toString('hex', at, at + PACK_ID_BYTES) as PackId);
  }
  const extents = new ExtentList();
  for (let at = extentsAt; at < end; at += EXTENT_BYTES) {
    const pack = packs[bytes.readUInt32LE(at)];
    const offset = readU64(bytes, at + 4);
    const length = readU64(bytes, at + 12);
    if (pack === undefined || length === 0 || !Number.isSafeInteger(offset + length)) return undefined;
    extents.push(pack, offset, length);
  }
  return extents.lengthBytes === readU64(bytes, TAR_BYTES_AT) ? { diffId, extents } : undefined;
}

/**
 * Returns the layer record of a DiffID if the layer is cached: the record is valid, its packs exist
 * and are long enough, and no extent overlaps a bad run. Does not read the layer's bytes.
 * @throws PullError `store-denied` or `store-broken` if the disk fails
 */
export function readLayerRecord(paths: StorePaths, diffId: Digest): LayerRecord | undefined {
  const record = readRecordFile(layerRecordPath(paths, diffId), diffId);
  return record && isCached(paths, record.extents) ? record : undefined;
}

/**
 * Reads the layer record in a file, without looking at its packs. Returns undefined if it is
 * invalid.
 * @throws PullError `store-denied` or `store-broken` if the disk fails
 */
export function readRecordFile(path: string, diffId: Digest): LayerRecord | undefined {
  const bytes = unlessUnfit(() => readIfExists(path, MAX_RECORD_BYTES));
  return bytes && decodeLayerRecord(bytes, diffId);
}

/**
 * Publishes a verified layer: syncs its packs, then writes the record atomically and durably.
 * @throws PullError `store-full`, `store-denied` or `store-broken`; the layer is then not published
 */
export async function writeLayerRecord(paths: StorePaths, record: LayerRecord): Promise<void> {
  await syncPacks(paths, record.extents.packs);
  await writeAtomically(layerRecordPath(paths, record.diffId), encodeLayerRecord(record), true);
}

/** Returns whether every pack exists and is long enough, and no extent overlaps a bad run. */
function isCached(paths: StorePaths, extents: ExtentList): boolean {
  const packs = new Map(
    extents.packs.map((id) => {
      const sizeBytes = statFile(packPath(paths, id))?.size ?? -1;
      return [id, { sizeBytes, bad: readBadRuns(paths, id) }] as const;
    }),
  );
  for (let i = 0; i < extents.count; i++) {
    const { sizeBytes, bad } = packs.get(extents.packAt(i))!;
    const offset = extents.offsetAt(i);
    const length = extents.lengthAt(i);
    if (offset + length > sizeBytes || overlapsRun(bad, offset, offset + length)) return false;
  }
  return true;
}

/** The file of a layer record, whether its layer is cached or not. */
export interface LayerFile {
  readonly diffId: Digest;
  readonly path: string;
  /**
   * Whether `zpull store verify` found the layer damaged: it is not cached, its intact extents are
   * reused.
   */
  readonly damaged: boolean;
}

/**
 * Lists all files with the name of a layer record, ordered by name.
 * @throws PullError as `storageError`
 */
export function listLayerFiles(paths: StorePaths): LayerFile[] {
  const names = ifExists(`read ${paths.layers}`, () => listNames(paths.layers)) ?? [];
  return names.flatMap((name) => {
    const [, hex, damaged] = /^([0-9a-f]{64})(\.damaged)?$/.exec(name) ?? [];
    if (hex === undefined) return [];
    const diffId = `sha256:${hex}` as Digest;
    return [{ diffId, path: join(paths.layers, name), damaged: damaged !== undefined }];
  });
}

/**
 * Returns the record of a DiffID, else the one that was set aside, without looking at their packs.
 */
export function findLayerRecord(paths: StorePaths, diffId: Digest): LayerRecord | undefined {
  return (
    readRecordFile(layerRecordPath(paths, diffId), diffId) ??
    readRecordFile(damagedRecordPath(paths, diffId), diffId)
  );
}

/**
 * Renames the record of a damaged layer, so that the layer is no longer cached. The renamed record
 * keeps `pruneStore` from deleting intact extents. Does nothing without a record or permission.
 * @throws PullError as `storageError`
 */
export async function setAsideRecord(paths: StorePaths, diffId: Digest): Promise<void> {
  const path = layerRecordPath(paths, diffId);
  if (statFile(path) === undefined) return;
  try {
    await moveFile(path, damagedRecordPath(paths, diffId));
  } catch (error) {
    if (isDenied(error)) return;
    throw error;
  }
  await syncDirectory(paths.layers);
}

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { moveFile, syncDirectory, writeAtomically } from '../files/atomic-file.js';
import { listNames } from '../files/guarded-directory.js';
import { readFile, statFile, unlessUnfit } from '../files/open-file.js';
import { ifExists, isDenied, wrapFsError } from '../files/storage-error.js';
import { DIGEST_BYTES, type Digest, digestBytes, digestOfBytes } from '../format/digest.js';
import { readBadRuns } from './bad-runs.js';
import { ExtentList } from './extents.js';
import { syncPacks } from './pack-sync.js';
import {
  damagedRecordPath,
  layerRecordPath,
  PACK_ID_BYTES,
  type PackId,
  packPath,
  type StorePaths,
} from './paths.js';
import { overlapsRun } from './runs.js';

/** A proven layer: the extents, one after the other, are the tar that hashes to the DiffID. */
export interface LayerRecord {
  readonly diffId: Digest;
  readonly extents: ExtentList;
}

/** Seven letters and the version of the record. */
const MAGIC = Buffer.from('zplayer\x01', 'latin1');
const DIFF_ID_AT = MAGIC.length;
const TAR_BYTES_AT = DIFF_ID_AT + DIGEST_BYTES;
const PACK_COUNT_AT = TAR_BYTES_AT + 8;
const EXTENT_COUNT_AT = PACK_COUNT_AT + 4;
const HEADER_BYTES = EXTENT_COUNT_AT + 4;
const EXTENT_BYTES = 20;

/** 6 million extents: fifty times the layer of 120,000 scattered files that this was measured with. */
const MAX_RECORD_BYTES = 128 * 2 ** 20;

/** The bytes of a layer record (docs/store-format.md). */
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
  sha256(bytes.subarray(0, end)).copy(bytes, end);
  return bytes;
}

/** The layer record that these bytes are, or undefined if they are not one of `diffId`, whole and consistent. */
export function decodeLayerRecord(bytes: Buffer, diffId: Digest): LayerRecord | undefined {
  if (bytes.length < HEADER_BYTES + DIGEST_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC))
    return undefined;
  const packCount = bytes.readUInt32LE(PACK_COUNT_AT);
  const count = bytes.readUInt32LE(EXTENT_COUNT_AT);
  const extentsAt = HEADER_BYTES + packCount * PACK_ID_BYTES;
  const end = extentsAt + count * EXTENT_BYTES;
  if (bytes.length !== end + DIGEST_BYTES) return undefined;
  if (!sha256(bytes.subarray(0, end)).equals(bytes.subarray(end))) return undefined;
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

/** Whether every pack is there and long enough, and no byte of the extents is known to be false. */
function isCached(paths: StorePaths, extents: ExtentList): boolean {
  const packs = new Map(
    extents.packs.map((id) => {
      const path = packPath(paths, id);
      const sizeBytes = wrapFsError(`look at ${path}`, () => statFile(path))?.size ?? -1;
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

/**
 * The layer record of a DiffID, if the store holds the layer: the record is whole, every pack it names is there and long
 * enough, and none of its extents proved false. The bytes themselves are not read.
 * @throws PullError `store-denied` or `store-broken` when the disk does not answer
 */
export function readLayerRecord(paths: StorePaths, diffId: Digest): LayerRecord | undefined {
  const record = readRecordFile(layerRecordPath(paths, diffId), diffId);
  return record && isCached(paths, record.extents) ? record : undefined;
}

/**
 * The layer record that a file is, whatever has become of the packs it names.
 * @throws PullError `store-denied` or `store-broken` when the disk does not answer
 */
export function readRecordFile(path: string, diffId: Digest): LayerRecord | undefined {
  const bytes = unlessUnfit(() => ifExists(`read ${path}`, () => readFile(path, MAX_RECORD_BYTES)));
  return bytes && decodeLayerRecord(bytes, diffId);
}

/**
 * Publishes a proven layer: its packs are synced, then the record appears under its name, whole and for good.
 * @throws PullError `store-full`, `store-denied` or `store-broken`; the layer is not published then
 */
export async function writeLayerRecord(paths: StorePaths, record: LayerRecord): Promise<void> {
  await syncPacks(paths, record.extents.packs);
  await writeAtomically(layerRecordPath(paths, record.diffId), encodeLayerRecord(record), true);
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

function writeU64(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}

/** A layer record as it lies on the disk, whether the layer is held or not. */
export interface LayerFile {
  readonly diffId: Digest;
  readonly path: string;
  /** Whether verify found it false: its layer is not held, its good extents are still of use. */
  readonly damaged: boolean;
}

/** All files that are named as layer records, in the order of their names. @throws PullError as `storageError` */
export function listLayerFiles(paths: StorePaths): LayerFile[] {
  const names = ifExists(`read ${paths.layers}`, () => listNames(paths.layers)) ?? [];
  return names.flatMap((name) => {
    const [, hex, damaged] = /^([0-9a-f]{64})(\.damaged)?$/.exec(name) ?? [];
    if (hex === undefined) return [];
    const diffId = `sha256:${hex}` as Digest;
    return [{ diffId, path: join(paths.layers, name), damaged: damaged !== undefined }];
  });
}

/** The record of a DiffID, else the one that was found damaged, whatever has become of its packs. */
export function findLayerRecord(paths: StorePaths, diffId: Digest): LayerRecord | undefined {
  return (
    readRecordFile(layerRecordPath(paths, diffId), diffId) ??
    readRecordFile(damagedRecordPath(paths, diffId), diffId)
  );
}

/**
 * Takes a layer out of what is held, if its record is there and this user may. It stays beside, so that nothing deletes the
 * extents that are still good.
 * @throws PullError as `storageError`
 */
export async function setAsideRecord(paths: StorePaths, diffId: Digest): Promise<void> {
  const path = layerRecordPath(paths, diffId);
  if (wrapFsError(`look at ${path}`, () => statFile(path)) === undefined) return;
  try {
    await moveFile(path, damagedRecordPath(paths, diffId));
  } catch (error) {
    if (isDenied(error)) return;
    throw error;
  }
  await syncDirectory(paths.layers);
}

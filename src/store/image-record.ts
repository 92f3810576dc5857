import { hash } from 'node:crypto';
import { basename, join, resolve } from 'node:path';
import {
  removeFile,
  removeFileSync,
  syncDirectory,
  syncFile,
  writeAtomically,
} from '../files/atomic-file.js';
import { listNames } from '../files/guarded-directory.js';
import { readIfExists, unlessUnfit } from '../files/open-file.js';
import { ifExists } from '../files/storage-error.js';
import { type Digest, digestOfBytes, isDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { MAX_CONFIG_BYTES } from '../format/image-config.js';
import { MAX_MANIFEST_BYTES } from '../format/manifest.js';
import { formatLocalImage, formatReference, parseLocalImage, parseReference } from '../format/reference.js';
import { isObject } from '../format/strict-json.js';
import {
  blobPath,
  imageRecordPath,
  openStore,
  openStoreToRead,
  type StoreOptions,
  type StorePaths,
} from './paths.js';

/** The largest manifest or config that is parsed. */
const MAX_DOCUMENT_BYTES = Math.max(MAX_MANIFEST_BYTES, MAX_CONFIG_BYTES);

/** Returns the digest of a small blob. */
export function sha256Of(bytes: Uint8Array): Digest {
  return digestOfBytes(hash('sha256', bytes, 'buffer'));
}

/**
 * Stores a small blob, whose digest the caller has checked. Does not sync it: `getBlob` hashes the
 * bytes again, and `writeImageRecord` syncs the blobs that it names. Does nothing in a read-only
 * store.
 * @throws PullError `store-full`, `store-denied` or `store-broken`
 */
export async function putBlob(paths: StorePaths, digest: Digest, bytes: Uint8Array): Promise<void> {
  if (paths.isReadOnly) return;
  await writeAtomically(blobPath(paths, digest), bytes, false);
}

/**
 * Returns a stored blob after checking its digest. Deletes a blob that is damaged, larger than
 * `maxBytes` (default: the limit of manifests and configs) or not a regular file, and returns
 * undefined.
 * @throws PullError `store-denied` or `store-broken` if the disk fails
 */
export function getBlob(
  paths: StorePaths,
  digest: Digest,
  maxBytes: number = MAX_DOCUMENT_BYTES,
): Buffer | undefined {
  const path = blobPath(paths, digest);
  const bytes = unlessUnfit(() => readIfExists(path, maxBytes), 'unfit' as const);
  if (bytes === undefined) return undefined;
  if (bytes !== 'unfit' && sha256Of(bytes) === digest) return bytes;
  if (paths.isReadOnly) return undefined;
  try {
    removeFileSync(path);
  } catch {
    // The damaged file stays, and the next call tries again.
  }
  return undefined;
}

/** Deletes a stored blob; an absent blob is no error. @throws PullError as `storageError` */
export async function deleteBlob(paths: StorePaths, digest: Digest): Promise<void> {
  await removeFile(blobPath(paths, digest));
}

/** A layer as the manifest names it. */
interface ImageLayer {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
}

/**
 * A complete and verified image. The store has manifest and config as blobs and the layers under
 * their DiffIDs.
 */
export interface ImageRecord {
  readonly reference: string;
  readonly platform: string;
  readonly manifestDigest: Digest;
  /** The digest of the image index that the manifest was chosen from, if any. */
  readonly indexDigest?: Digest;
  readonly manifestMediaType: string;
  readonly configDigest: Digest;
  readonly diffIds: readonly Digest[];
  /** One for each of `diffIds`, in the same order. */
  readonly layers: readonly ImageLayer[];
  /** Milliseconds since 1970. */
  readonly createdMs: number;
  readonly lastUsedMs: number;
}

/** The version of the record, in its first field. */
const VERSION = 1;

/** A record of 1,000 layers has about 300 KB; image builders stop at 127. */
const MAX_RECORD_BYTES = 2 ** 20;
const MAX_LAYERS = 1000;
/**
 * Longer than any reference (the distribution spec allows 255 + 128 + 71 characters) or media type.
 */
const MAX_TEXT = 4096;

/**
 * Publishes an image, or updates its last use. Syncs the blobs of manifest and config first: an
 * image record guarantees that they exist.
 * @throws PullError `store-full`, `store-denied` or `store-broken`
 */
export async function writeImageRecord(paths: StorePaths, record: ImageRecord): Promise<void> {
  await Promise.all(
    [record.manifestDigest, record.configDigest].map((digest) => syncFile(blobPath(paths, digest))),
  );
  await syncDirectory(paths.blobs);
  const text = `${JSON.stringify({ version: VERSION, ...record }, undefined, 2)}\n`;
  await writeAtomically(imageRecordPath(paths, record.reference, record.platform), Buffer.from(text), true);
}

/**
 * Returns the record of an image, or undefined if there is no valid one.
 * @throws PullError `store-denied` or `store-broken` if the disk fails
 */
export function readImageRecord(
  paths: StorePaths,
  reference: string,
  platform: string,
): ImageRecord | undefined {
  return readRecordFile(paths, imageRecordPath(paths, reference, platform));
}

/**
 * Returns all valid image records, ordered by reference and platform.
 * @throws PullError as `readImageRecord`
 */
export function listImageRecords(paths: StorePaths): ImageRecord[] {
  const isRecord = (name: string) => /^[0-9a-f]{64}\.json$/.test(name);
  const names = ifExists(`read ${paths.images}`, () => listNames(paths.images, isRecord)) ?? [];
  return names
    .map((name) => readRecordFile(paths, join(paths.images, name)))
    .filter((record) => record !== undefined)
    .sort((a, b) => compare(a.reference, b.reference) || compare(a.platform, b.platform));
}

/**
 * Returns the names of the images in a store, sorted, each once. An absent store has none.
 * @throws PullError as `readImageRecord`
 */
export function listImageNames(options: StoreOptions): string[] {
  const records = listImageRecords(openStoreToRead(options.store, options.warn));
  return [...new Set(records.map(({ reference }) => reference))];
}

function readRecordFile(paths: StorePaths, path: string): ImageRecord | undefined {
  const bytes = unlessUnfit(() => readIfExists(path, MAX_RECORD_BYTES));
  const record = bytes && parseRecord(bytes.toString('utf8'));
  if (record === undefined) return undefined;
  const name = basename(imageRecordPath(paths, record.reference, record.platform));
  return name === basename(path) ? record : undefined;
}

function parseRecord(text: string): ImageRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(value) || value['version'] !== VERSION) return undefined;
  const { reference, platform, manifestDigest, manifestMediaType, configDigest, createdMs, lastUsedMs } =
    value;
  const { indexDigest } = value;
  const diffIds = listOf(value['diffIds'], (item) => (isDigest(item) ? item : undefined));
  const layers = listOf(value['layers'], parseLayer);
  if (!isText(reference) || !isText(platform) || !isText(manifestMediaType)) return undefined;
  if (!isDigest(manifestDigest) || !isDigest(configDigest)) return undefined;
  if (indexDigest !== undefined && !isDigest(indexDigest)) return undefined;
  if (!isCount(createdMs) || !isCount(lastUsedMs)) return undefined;
  if (diffIds === undefined || layers === undefined || diffIds.length !== layers.length) return undefined;
  return {
    reference,
    platform,
    manifestDigest,
    ...(indexDigest && { indexDigest }),
    manifestMediaType,
    configDigest,
    diffIds,
    layers,
    createdMs,
    lastUsedMs,
  };
}

function parseLayer(value: unknown): ImageLayer | undefined {
  if (!isObject(value)) return undefined;
  const { digest, mediaType, sizeBytes } = value;
  // A manifest may omit the media type of a layer.
  return isDigest(digest) && (isText(mediaType) || mediaType === '') && isCount(sizeBytes)
    ? { digest, mediaType, sizeBytes }
    : undefined;
}

/** Returns all items parsed, or undefined if one is malformed or there are too many. */
function listOf<T>(value: unknown, parse: (item: unknown) => T | undefined): T[] | undefined {
  if (!Array.isArray(value) || value.length > MAX_LAYERS) return undefined;
  const items = value.map(parse).filter((item) => item !== undefined);
  return items.length === value.length ? items : undefined;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= MAX_TEXT;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** As many hex digits of a digest as `zpull store ls` shows; fewer may be a short name. */
const DIGEST_START = /^(sha256:)?([0-9a-f]{12,64})$/;

/**
 * Returns the records of an image, one for each platform. `name` is what `zpull pull` takes, or a
 * digest of the image or its index, of which the first 12 hex digits are enough: then the records
 * of all its names. A name goes before a digest.
 * @throws PullError `reference-malformed`, also for the beginning of several digests;
 *   `image-not-found` if the store has none
 */
export function imagesNamed(paths: StorePaths, name: string): ImageRecord[] {
  const records = listImageRecords(paths);
  const [, , hex] = DIGEST_START.exec(name) ?? [];
  // 64 digits, or some behind sha256:, are no name.
  const reference = hex?.length === 64 || name.startsWith('sha256:') ? name : fullName(name);
  const named = records.filter((record) => record.reference === reference);
  const found = named.length === 0 && hex !== undefined ? withDigest(records, hex) : named;
  if (found.length > 0) return found;
  const what = hex === undefined ? reference : name;
  throw new PullError('image-not-found', `${what} is not in the store ${paths.root}`, {
    hint: 'zpull store ls lists the images in the store',
  });
}

function fullName(name: string): string {
  const local = parseLocalImage(name, (path) => resolve(path));
  return local === undefined ? formatReference(parseReference(name)) : formatLocalImage(local);
}

/** @throws PullError `reference-malformed` when several digests begin with these digits */
function withDigest(records: readonly ImageRecord[], hex: string): ImageRecord[] {
  const start = `sha256:${hex}`;
  const digestOf = ({ manifestDigest, indexDigest }: ImageRecord) =>
    [manifestDigest, indexDigest].find((digest) => digest?.startsWith(start));
  const found = records.filter((record) => digestOf(record) !== undefined);
  const digests = [...new Set(found.map(digestOf))];
  if (digests.length < 2) return found;
  throw new PullError('reference-malformed', `several images in the store have a digest like ${hex}`, {
    hint: `write more of it: ${digests.join(', ')}`,
  });
}

/** An image that was removed from the store. */
export interface RemovedImage {
  readonly image: string;
  readonly digest: Digest;
  readonly platform: string;
}

/**
 * Removes an image from the store, on every platform. Its layers stay until `pruneStore` removes
 * those that no other image uses.
 * @throws PullError `image-not-found`, `reference-malformed`, else as `storageError`
 */
export async function removeImage(
  options: StoreOptions & { readonly image: string },
): Promise<RemovedImage[]> {
  const paths = openStore(options.store, options.warn);
  const records = imagesNamed(paths, options.image);
  for (const { reference, platform } of records)
    await removeFile(imageRecordPath(paths, reference, platform));
  await syncDirectory(paths.images);
  return records.map(({ reference, manifestDigest, platform }) => ({
    image: reference,
    digest: manifestDigest,
    platform,
  }));
}

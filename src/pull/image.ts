import { isUnwritable } from '../files/storage-error.js';
import { PullError } from '../format/error.js';
import { checkLayerCount, parseConfig } from '../format/image-config.js';
import { parseManifest } from '../format/manifest.js';
import { completePlatform, formatPlatform, parsePlatform } from '../format/platform.js';
import { getBlob } from '../store/blob-cache.js';
import { type ImageRecord, readImageRecord, writeImageRecord } from '../store/image-record.js';
import { readLayerRecord } from '../store/layer-record.js';
import type { StorePaths } from '../store/paths.js';
import type { ResolvedImage } from './resolve.js';
import type { Settings } from './settings.js';
import { type ImageLayer, imageLayers } from './wanted.js';

/** A use is noted at most this often, in milliseconds: noting it syncs to the disk. */
const NOTE_USE_MS = 3_600_000;

/** An image that the store has whole, for the policies that do not ask the registry first. */
export interface RecordedImage {
  readonly image: ResolvedImage;
  readonly layers: readonly ImageLayer[];
  readonly record: ImageRecord;
}

/**
 * The image as the store has it, when the policy allows to use it unasked and every layer is still there.
 * @throws PullError `image-not-found` with policy `never` when it is not there
 */
export function recordedImage(
  paths: StorePaths,
  reference: string,
  settings: Settings,
): RecordedImage | undefined {
  if (settings.policy === 'always') return undefined;
  const record = readImageRecord(paths, reference, settings.platformName);
  const image = cachedImage(paths, record);
  const layers = image === undefined ? [] : imageLayers(image, paths);
  if (
    record !== undefined &&
    image !== undefined &&
    layers.every((layer) => layer.cachedTarBytes !== undefined)
  )
    return { image, layers, record };
  if (settings.policy === 'missing') return undefined;
  throw new PullError(
    'image-not-found',
    `${reference} for ${settings.platformName} is not in the store ${paths.root}`,
    {
      hint: 'the policy "never" forbids to ask the registry: pull it without --policy never',
    },
  );
}

/** What the record names, from the blobs it keeps. */
function cachedImage(paths: StorePaths, record: ImageRecord | undefined): ResolvedImage | undefined {
  if (record === undefined) return undefined;
  const manifestBytes = getBlob(paths, record.manifestDigest);
  const configBytes = getBlob(paths, record.configDigest);
  if (manifestBytes === undefined || configBytes === undefined) return undefined;
  const manifest = parseManifest(manifestBytes, record.manifestMediaType);
  if (manifest.kind !== 'manifest') return undefined;
  const stated = parseConfig(configBytes, manifest.config.mediaType);
  checkLayerCount(manifest, stated);
  const { manifestDigest, indexDigest } = record;
  const config = { ...stated, ...completePlatform(stated, parsePlatform(record.platform)) };
  const platform = formatPlatform(config);
  return { manifestDigest, ...(indexDigest && { indexDigest }), manifest, config, configBytes, platform };
}

/** Notes that an image was used; a store that cannot be written gives what it has all the same. */
export async function noteUse(paths: StorePaths, record: ImageRecord): Promise<void> {
  const now = Date.now();
  if (now - record.lastUsedMs < NOTE_USE_MS) return;
  try {
    await writeImageRecord(paths, { ...record, lastUsedMs: now });
  } catch (error) {
    if (!isUnwritable(error)) throw error;
  }
}

/**
 * Publishes the image, last of all, after every layer record was looked at once more.
 * @throws PullError `store-broken` when a layer is not in the store any more
 */
export async function writeRecord(
  paths: StorePaths,
  reference: string,
  settings: Settings,
  image: ResolvedImage,
): Promise<void> {
  const { manifest, config, manifestDigest, indexDigest } = image;
  for (const diffId of config.diffIds) {
    if (readLayerRecord(paths, diffId) === undefined) {
      throw new PullError('store-broken', `layer ${diffId} is gone from the store ${paths.root}`, {
        hint: 'something else deletes files there; pull again',
      });
    }
  }
  const known = readImageRecord(paths, reference, settings.platformName);
  const now = Date.now();
  const same = known?.manifestDigest === manifestDigest && known.indexDigest === indexDigest;
  if (same && now - known.lastUsedMs < NOTE_USE_MS) return;
  const record: ImageRecord = {
    reference,
    platform: settings.platformName,
    manifestDigest,
    ...(indexDigest && { indexDigest }),
    manifestMediaType: manifest.mediaType,
    configDigest: manifest.config.digest,
    diffIds: config.diffIds,
    layers: manifest.layers.map(({ digest, mediaType, sizeBytes }) => ({ digest, mediaType, sizeBytes })),
    createdMs: same ? known.createdMs : now,
    lastUsedMs: now,
  };
  await writeImageRecord(paths, record);
}

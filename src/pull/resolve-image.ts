import { createHash } from 'node:crypto';
import { isUnwritable } from '../files/storage-error.js';
import { type Digest, digestOfBytes, isDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { checkConfigType, checkLayerCount, type ImageConfig, parseConfig } from '../format/image-config.js';
import { type ImageIndex, type ImageManifest, parseManifest } from '../format/manifest.js';
import { completePlatform, formatPlatform, type Platform, parsePlatform } from '../format/platform.js';
import type { RegistrySession } from '../registry/session.js';
import { getBlob, putBlob } from '../store/blob-cache.js';
import { type ImageRecord, readImageRecord, writeImageRecord } from '../store/image-record.js';
import { readLayerRecord } from '../store/layer-record.js';
import type { StorePaths } from '../store/paths.js';
import { chooseManifest, platformsOf } from './image-index.js';
import { type ImageLayer, imageLayers } from './missing-layers.js';
import type { Settings } from './pull-options.js';
import type { RegistryLink } from './pull-session.js';

type Questions = Pick<RegistrySession, 'getManifest' | 'headManifest' | 'getBlob'>;

/** What a reference names, checked down to the config. */
export interface ResolvedImage {
  readonly manifestDigest: Digest;
  /** The digest of the index that led to it, when there was one. */
  readonly indexDigest?: Digest;
  readonly manifest: ImageManifest;
  /** With the platform that was asked for, as far as it states none. */
  readonly config: ImageConfig;
  /** The config as it is in the registry. */
  readonly configBytes: Buffer;
  readonly platform: string;
  /** What the index has, when there was one; attestations are not counted. */
  readonly platforms?: ReadonlyArray<{ readonly platform: string; readonly digest: Digest }>;
}

/**
 * Resolves a reference: manifest (checked against the digest asked for), the index's entry for the platform, the
 * config (checked against its digest and the number of layers). What is named by digest and already in the store
 * is not fetched again. Of a tag that was pulled before, the registry is asked first which digest it has now.
 */
export async function resolveImage(
  session: Questions,
  asked: Pick<RegistryLink, 'name' | 'image' | 'settings'>,
  paths: StorePaths,
  warn: (message: string) => void,
): Promise<ResolvedImage> {
  const { image, settings } = asked;
  let { name } = asked;
  const pulledBefore = readImageRecord(paths, image, settings.platformName) !== undefined;
  if (pulledBefore && !isDigest(name)) name = (await cachedDigest(session, name, paths)) ?? name;
  const { digest, manifest } = await readManifest(session, name, paths);
  if (manifest.kind === 'manifest') {
    return { manifestDigest: digest, ...(await withConfig(session, manifest, paths, settings, warn)) };
  }
  const { document } = await chooseManifest(manifest, settings.platform, {
    readDocument: (entry) => readManifest(session, entry, paths),
    readPlatform: async (entry) => (await readConfig(session, entry, paths)).config,
    warn,
  });
  return {
    manifestDigest: document.digest,
    indexDigest: digest,
    platforms: platformsOf(manifest),
    ...(await withConfig(session, document.manifest, paths, settings, warn)),
  };
}

async function withConfig(
  session: Questions,
  manifest: ImageManifest,
  paths: StorePaths,
  settings: Settings,
  warn: (message: string) => void,
): Promise<Pick<ResolvedImage, 'manifest' | 'config' | 'configBytes' | 'platform'>> {
  const { bytes: configBytes, config: stated } = await readConfig(session, manifest, paths);
  const config = { ...stated, ...completePlatform(stated, settings.platform) };
  const platform = formatPlatform(config);
  const missing = whatIsMissing(stated);
  if (missing !== '') warn(`the image's config does not say ${missing}; it is taken for ${platform}`);
  return { manifest, config, configBytes, platform };
}

function whatIsMissing({ os, architecture }: Platform): string {
  const parts = [os === '' ? 'its operating system' : '', architecture === '' ? 'its architecture' : ''];
  return parts.filter((part) => part !== '').join(' and ');
}

/**
 * The digest of a tag, if the store has what it names: a pull limit (Docker Hub's) counts GETs. The word of the registry
 * selects among manifests that were proven; a GET says more to whoever does not have it.
 */
async function cachedDigest(session: Questions, tag: string, paths: StorePaths): Promise<Digest | undefined> {
  const digest = await session.headManifest(tag);
  return digest !== undefined && getBlob(paths, digest) !== undefined ? digest : undefined;
}

async function readManifest(
  session: Questions,
  name: string,
  paths: StorePaths,
): Promise<{ digest: Digest; manifest: ImageIndex | ImageManifest }> {
  const kept = isDigest(name) ? getBlob(paths, name) : undefined;
  if (kept !== undefined) return { digest: digestOf(kept), manifest: parseManifest(kept) };
  const { bytes, mediaType } = await session.getManifest(name);
  const manifest = parseManifest(bytes, mediaType);
  const digest = digestOf(bytes);
  await putBlob(paths, digest, bytes);
  return { digest, manifest };
}

async function readConfig(
  session: Questions,
  manifest: ImageManifest,
  paths: StorePaths,
): Promise<{ bytes: Buffer; config: ImageConfig }> {
  const { digest, sizeBytes, mediaType } = manifest.config;
  checkConfigType(manifest.config);
  let bytes = getBlob(paths, digest);
  if (bytes === undefined) {
    bytes = await session.getBlob(digest, sizeBytes);
    await putBlob(paths, digest, bytes);
  }
  const config = parseConfig(bytes, mediaType);
  checkLayerCount(manifest, config);
  return { bytes, config };
}

function digestOf(bytes: Buffer): Digest {
  return digestOfBytes(createHash('sha256').update(bytes).digest());
}

/** A use is noted at most this often, in milliseconds: noting it syncs to the disk. */
const NOTE_USE_MS = 3_600_000;

/** An image that the store has whole, for the policies that do not ask the registry first. */
interface RecordedImage {
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

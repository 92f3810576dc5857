import { isUnwritable } from '../files/storage-error.js';
import { type Digest, isDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { checkConfigType, checkLayerCount, type ImageConfig, parseConfig } from '../format/image-config.js';
import { type ImageIndex, type ImageManifest, parseManifest } from '../format/manifest.js';
import {
  completePlatform,
  formatPlatform,
  normalisePlatform,
  type Platform,
  parsePlatform,
} from '../format/platform.js';
import type { RegistrySession } from '../registry/session.js';
import {
  getBlob,
  type ImageRecord,
  putBlob,
  readImageRecord,
  sha256Of,
  writeImageRecord,
} from '../store/image-record.js';
import { readLayerRecord } from '../store/layer-record.js';
import type { StorePaths } from '../store/paths.js';
import { chooseManifest, platformsOf } from './image-index.js';
import { type ImageLayer, imageLayers } from './layer.js';
import type { Settings } from './pull-options.js';
import type { ImageSource, PullSession } from './pull-session.js';

type Registry = Pick<RegistrySession, 'getManifest' | 'headManifest' | 'getBlob'>;

/** The image that a reference names, verified down to the config. */
export interface ResolvedImage {
  readonly manifestDigest: Digest;
  /** The digest of the index that names the manifest, if there is one. */
  readonly indexDigest?: Digest;
  readonly manifest: ImageManifest;
  /** Completed by the requested platform where it states none. */
  readonly config: ImageConfig;
  /** The config, byte for byte. */
  readonly configBytes: Buffer;
  readonly platform: string;
  /** The platforms of the index, if there is one, without attestations. */
  readonly platforms?: ReadonlyArray<{ readonly platform: string; readonly digest: Digest }>;
}

/**
 * Resolves the reference of a session as `resolveImage` does, and reports what it names.
 * @throws PullError as `PullSession.resolve` and `resolveImage`
 */
export async function resolveSession(
  session: Pick<PullSession, 'source' | 'settings' | 'progress' | 'resolve'>,
  paths: StorePaths,
  warn: (message: string) => void,
): Promise<ResolvedImage> {
  const { source, settings, progress } = session;
  const image = await session.resolve((registry) =>
    resolveImage(registry, { ...source, settings }, paths, warn),
  );
  progress.emit({
    event: 'resolved',
    image: source.image,
    digest: image.manifestDigest,
    ...(image.indexDigest && { indexDigest: image.indexDigest }),
    platform: image.platform,
    layers: image.manifest.layers.length,
    totalBytes: image.manifest.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0),
  });
  return image;
}

/**
 * Resolves a reference to a manifest (verified by the requested digest), an index to its entry for
 * the platform, and reads the config (verified by its digest and the number of layers). Does not
 * fetch what is named by digest and stored already. For a tag that was pulled before, a HEAD
 * request reads its digest first.
 * @throws PullError as `RegistrySession`, `parseManifest`, `parseConfig` and `chooseManifest`
 */
async function resolveImage(
  registry: Registry,
  source: Pick<ImageSource, 'name' | 'image'> & { readonly settings: Settings },
  paths: StorePaths,
  warn: (message: string) => void,
): Promise<ResolvedImage> {
  const { settings } = source;
  const root = await readNamed(registry, source, paths);
  const { digest, manifest } = await chooseImage(registry, root, settings.platform, paths, warn);
  const isIndex = root.manifest.kind === 'index';
  return {
    manifestDigest: digest,
    ...(isIndex && { indexDigest: root.digest, platforms: platformsOf(root.manifest) }),
    ...(await withConfig(registry, manifest, paths, settings, warn)),
  };
}

/** A manifest or an index that was read. */
export interface ReadDocument<M = ImageIndex | ImageManifest> {
  readonly digest: Digest;
  readonly bytes: Buffer;
  readonly manifest: M;
}

/**
 * Reads the manifest or index that a session's reference names, by digest from the store if it is
 * there.
 * @throws PullError as `RegistrySession` and `parseManifest`
 */
export async function readNamed(
  registry: Registry,
  { name, image, settings }: Pick<ImageSource, 'name' | 'image'> & { readonly settings: Settings },
  paths: StorePaths,
): Promise<ReadDocument> {
  const pulledBefore = readImageRecord(paths, image, settings.platformName) !== undefined;
  const digest = pulledBefore && !isDigest(name) ? await cachedDigest(registry, name, paths) : undefined;
  return readManifest(registry, digest ?? name, paths);
}

/**
 * Returns the manifest for a platform: `root` itself unless that is an index.
 * @throws PullError as `RegistrySession`, `parseManifest` and `chooseManifest`
 */
export async function chooseImage(
  registry: Registry,
  root: ReadDocument,
  platform: Platform,
  paths: StorePaths,
  warn: (message: string) => void,
): Promise<ReadDocument<ImageManifest>> {
  const { manifest } = root;
  if (manifest.kind === 'manifest') return { ...root, manifest };
  const { document } = await chooseManifest(manifest, platform, {
    readDocument: (entry) => readManifest(registry, entry, paths),
    readPlatform: async (entry) => (await readConfig(registry, entry, paths)).config,
    warn,
  });
  return document;
}

async function withConfig(
  registry: Registry,
  manifest: ImageManifest,
  paths: StorePaths,
  settings: Settings,
  warn: (message: string) => void,
): Promise<Pick<ResolvedImage, 'manifest' | 'config' | 'configBytes' | 'platform'>> {
  const { bytes: configBytes, config: stated } = await readConfig(registry, manifest, paths);
  const config = { ...stated, ...completePlatform(stated, settings.platform) };
  const platform = formatPlatform(config);
  const missing = missingPlatform(stated);
  if (missing !== '') warn(`the image's config does not say ${missing}; assuming ${platform}`);
  if (!isForPlatform(config, settings.platform)) {
    warn(`the image is for ${platform}, not for ${settings.platformName}`);
  }
  return { manifest, config, configBytes, platform };
}

/** A manifest without an index can be for any platform; other tools accept it, too. */
function isForPlatform(config: Platform, requested: Platform): boolean {
  const [actual, expected] = [normalisePlatform(config), normalisePlatform(requested)];
  return actual.os === expected.os && actual.architecture === expected.architecture;
}

function missingPlatform({ os, architecture }: Platform): string {
  const parts = [os === '' ? 'its operating system' : '', architecture === '' ? 'its architecture' : ''];
  return parts.filter((part) => part !== '').join(' and ');
}

/**
 * The digest of a tag, if the store has what it names: pull limits, such as Docker Hub's, count
 * GETs. The answer only selects among verified manifests.
 */
async function cachedDigest(registry: Registry, tag: string, paths: StorePaths): Promise<Digest | undefined> {
  const digest = await registry.headManifest(tag);
  return digest !== undefined && getBlob(paths, digest) !== undefined ? digest : undefined;
}

async function readManifest(registry: Registry, name: string, paths: StorePaths): Promise<ReadDocument> {
  const cached = isDigest(name) ? getBlob(paths, name) : undefined;
  if (cached !== undefined)
    return { digest: sha256Of(cached), bytes: cached, manifest: parseManifest(cached) };
  const { bytes, mediaType } = await registry.getManifest(name);
  const manifest = parseManifest(bytes, mediaType);
  const digest = sha256Of(bytes);
  await putBlob(paths, digest, bytes);
  return { digest, bytes, manifest };
}

async function readConfig(
  registry: Registry,
  manifest: ImageManifest,
  paths: StorePaths,
): Promise<{ bytes: Buffer; config: ImageConfig }> {
  const { digest, sizeBytes, mediaType } = manifest.config;
  checkConfigType(manifest.config);
  let bytes = getBlob(paths, digest);
  if (bytes === undefined) {
    bytes = await registry.getBlob(digest, sizeBytes);
    await putBlob(paths, digest, bytes);
  }
  const config = parseConfig(bytes, mediaType);
  checkLayerCount(manifest, config);
  return { bytes, config };
}

/**
 * Minimum time between two updates of an image's last use, in milliseconds: each syncs to the disk.
 */
const MIN_USE_INTERVAL_MS = 3_600_000;

/** A complete image in the store, for the policies that do not ask the registry first. */
interface RecordedImage {
  readonly image: ResolvedImage;
  readonly layers: readonly ImageLayer[];
  readonly record: ImageRecord;
}

/**
 * The image from the store, when the policy does not require a request and every layer is stored.
 * @throws PullError `image-not-found` with policy `never` when it is not stored
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

/** The image that a record names, from stored blobs. */
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

/** Updates the time of an image's last use, except in a store that is read-only. */
export async function noteUse(paths: StorePaths, record: ImageRecord): Promise<void> {
  const now = Date.now();
  if (now - record.lastUsedMs < MIN_USE_INTERVAL_MS) return;
  try {
    await writeImageRecord(paths, { ...record, lastUsedMs: now });
  } catch (error) {
    if (!isUnwritable(error)) throw error;
  }
}

/**
 * Publishes the image: the last step of a pull, after another check that every layer is recorded.
 * @throws PullError `store-broken` when a layer is not in the store any more
 */
export async function writeRecord(
  paths: StorePaths,
  reference: string,
  settings: Settings,
  image: ResolvedImage,
  sync = (write: () => Promise<void>) => write(),
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
  if (same && now - known.lastUsedMs < MIN_USE_INTERVAL_MS) return;
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
  await sync(() => writeImageRecord(paths, record));
}

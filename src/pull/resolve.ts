import { createHash } from 'node:crypto';
import { type Digest, digestOfBytes, isDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import {
  checkLayerCount,
  type ImageConfig,
  type ImageIndex,
  type ImageManifest,
  parseConfig,
  parseManifest,
  requireImage,
} from '../format/manifest.js';
import { choosePlatform, formatPlatform } from '../format/platform.js';
import type { Reference } from '../format/reference.js';
import type { RegistrySession } from '../registry/session.js';
import { getBlob, putBlob } from '../store/blob-cache.js';
import type { StorePaths } from '../store/paths.js';
import type { Settings } from './settings.js';

/** An index may name an index, whose entries must be manifests: deeper nests are nobody's image. */
const MOST_INDEX_LEVELS = 2;

/** What a reference names, checked down to the config. */
export interface ResolvedImage {
  readonly manifestDigest: Digest;
  readonly manifest: ImageManifest;
  readonly config: ImageConfig;
  readonly platform: string;
}

/**
 * Resolves a reference: manifest (checked against the digest asked for), the index's entry for the platform, the
 * config (checked against its digest and the number of layers). What is named by digest and already in the store
 * is not fetched again.
 */
export async function resolveImage(
  session: RegistrySession,
  reference: Reference,
  paths: StorePaths,
  settings: Settings,
): Promise<ResolvedImage> {
  let name: string = reference.digest ?? reference.tag ?? 'latest';
  for (let level = 0; level <= MOST_INDEX_LEVELS; level++) {
    const { bytes, manifest } = await readManifest(session, name, paths);
    if (manifest.kind === 'manifest') {
      requireImage(manifest);
      const config = await readConfig(session, manifest, paths);
      const manifestDigest = digestOf(bytes);
      await putBlob(paths, manifestDigest, bytes);
      return { manifestDigest, manifest, config, platform: formatPlatform(config) };
    }
    const chosen = choosePlatform(settings.platform, manifest.manifests);
    if (chosen === undefined) throw noSuchPlatform(settings, manifest);
    await putBlob(paths, digestOf(bytes), bytes);
    name = chosen.digest;
  }
  throw new PullError('unsupported', `the image index is nested deeper than ${MOST_INDEX_LEVELS} levels`);
}

async function readManifest(
  session: RegistrySession,
  name: string,
  paths: StorePaths,
): Promise<{ bytes: Buffer; manifest: ImageIndex | ImageManifest }> {
  const kept = isDigest(name) ? getBlob(paths, name) : undefined;
  if (kept !== undefined) return { bytes: kept, manifest: parseManifest(kept) };
  const { bytes, mediaType } = await session.getManifest(name);
  return { bytes, manifest: parseManifest(bytes, mediaType) };
}

async function readConfig(
  session: RegistrySession,
  manifest: ImageManifest,
  paths: StorePaths,
): Promise<ImageConfig> {
  const { digest, sizeBytes } = manifest.config;
  let bytes = getBlob(paths, digest);
  if (bytes === undefined) {
    bytes = await session.getBlob(digest, sizeBytes);
    await putBlob(paths, digest, bytes);
  }
  const config = parseConfig(bytes);
  checkLayerCount(manifest, config);
  return config;
}

function digestOf(bytes: Buffer): Digest {
  return digestOfBytes(createHash('sha256').update(bytes).digest());
}

/** The error for an index without a manifest for the platform: it names those that there are. */
export function noSuchPlatform(settings: Settings, index: ImageIndex): PullError {
  const offered = index.manifests
    .map((entry) => (entry.platform === undefined ? undefined : formatPlatform(entry.platform)))
    .filter((name) => name !== undefined && name !== 'unknown/unknown');
  const list = [...new Set(offered)].join(', ');
  return new PullError('platform-not-found', `the image has no manifest for ${settings.platformName}`, {
    hint: list === '' ? 'the index names no platform at all' : `choose one with --platform: ${list}`,
  });
}

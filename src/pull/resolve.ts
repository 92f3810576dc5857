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
import { formatReference, type Reference } from '../format/reference.js';
import { listSome } from '../format/text.js';
import type { RegistrySession } from '../registry/session.js';
import { getBlob, putBlob } from '../store/blob-cache.js';
import { readImageRecord } from '../store/image-record.js';
import type { StorePaths } from '../store/paths.js';
import type { Settings } from './settings.js';

/** An index may name an index, whose entries must be manifests: deeper nests are nobody's image. */
const MOST_INDEX_LEVELS = 2;

type Questions = Pick<RegistrySession, 'getManifest' | 'headManifest' | 'getBlob'>;

/** What a reference names, checked down to the config. */
export interface ResolvedImage {
  readonly manifestDigest: Digest;
  readonly manifest: ImageManifest;
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
  reference: Reference,
  paths: StorePaths,
  settings: Settings,
): Promise<ResolvedImage> {
  let name: string = reference.digest ?? reference.tag ?? 'latest';
  let platforms: ResolvedImage['platforms'];
  const pulledBefore =
    readImageRecord(paths, formatReference(reference), settings.platformName) !== undefined;
  if (pulledBefore && !isDigest(name)) name = (await heldDigest(session, name, paths)) ?? name;
  for (let level = 0; level <= MOST_INDEX_LEVELS; level++) {
    const { bytes, manifest } = await readManifest(session, name, paths);
    if (manifest.kind === 'manifest') {
      requireImage(manifest);
      const { bytes: configBytes, config } = await readConfig(session, manifest, paths);
      const manifestDigest = digestOf(bytes);
      await putBlob(paths, manifestDigest, bytes);
      const resolved = { manifestDigest, manifest, config, configBytes, platform: formatPlatform(config) };
      return platforms === undefined ? resolved : { ...resolved, platforms };
    }
    platforms ??= platformsOf(manifest);
    const chosen = choosePlatform(settings.platform, manifest.manifests);
    if (chosen === undefined) throw noSuchPlatform(settings, manifest);
    await putBlob(paths, digestOf(bytes), bytes);
    name = chosen.digest;
  }
  throw new PullError('unsupported', `the image index is nested deeper than ${MOST_INDEX_LEVELS} levels`);
}

/**
 * The digest of a tag, if the store has what it names: a pull limit (Docker Hub's) counts GETs. The word of the registry
 * selects among manifests that were proven; a GET says more to whoever does not have it.
 */
async function heldDigest(session: Questions, tag: string, paths: StorePaths): Promise<Digest | undefined> {
  const digest = await session.headManifest(tag);
  return digest !== undefined && getBlob(paths, digest) !== undefined ? digest : undefined;
}

async function readManifest(
  session: Questions,
  name: string,
  paths: StorePaths,
): Promise<{ bytes: Buffer; manifest: ImageIndex | ImageManifest }> {
  const kept = isDigest(name) ? getBlob(paths, name) : undefined;
  if (kept !== undefined) return { bytes: kept, manifest: parseManifest(kept) };
  const { bytes, mediaType } = await session.getManifest(name);
  return { bytes, manifest: parseManifest(bytes, mediaType) };
}

async function readConfig(
  session: Questions,
  manifest: ImageManifest,
  paths: StorePaths,
): Promise<{ bytes: Buffer; config: ImageConfig }> {
  const { digest, sizeBytes } = manifest.config;
  let bytes = getBlob(paths, digest);
  if (bytes === undefined) {
    bytes = await session.getBlob(digest, sizeBytes);
    await putBlob(paths, digest, bytes);
  }
  const config = parseConfig(bytes);
  checkLayerCount(manifest, config);
  return { bytes, config };
}

function digestOf(bytes: Buffer): Digest {
  return digestOfBytes(createHash('sha256').update(bytes).digest());
}

/** The error for an index without a manifest for the platform: it names those that there are. */
export function noSuchPlatform(settings: Settings, index: ImageIndex): PullError {
  const list = listSome([...new Set(platformsOf(index).map(({ platform }) => platform))]);
  return new PullError('platform-not-found', `the image has no manifest for ${settings.platformName}`, {
    hint: list === '' ? 'the index names no platform at all' : `choose one with --platform: ${list}`,
  });
}

function platformsOf(index: ImageIndex): { platform: string; digest: Digest }[] {
  return index.manifests.flatMap(({ platform, digest }) => {
    const name = platform === undefined ? 'unknown/unknown' : formatPlatform(platform);
    return name === 'unknown/unknown' ? [] : [{ platform: name, digest }];
  });
}

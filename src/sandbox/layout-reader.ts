import { lstatSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { guardDirectory, withGuarded } from '../files/guarded-directory.js';
import { openFile, readFile, statFile } from '../files/open-file.js';
import { UnfitFile } from '../files/storage-error.js';
import { type Digest, digestHex, isDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { MAX_MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST, SCHEMA_1_TYPES } from '../format/manifest.js';
import { isObject } from '../format/strict-json.js';

/** A manifest with its media type. */
interface StoredManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** The file of a blob. */
export interface BlobFile {
  readonly path: string;
  readonly sizeBytes: number;
}

/** An OCI image layout; each call reads its current state. */
export interface LayoutReader {
  /** Returns all tags, sorted. */
  tags(): string[];
  /** Returns the manifest of a tag or digest, or undefined. */
  manifest(reference: string): StoredManifest | undefined;
  /** Returns the blob of a digest, or undefined. */
  blob(digest: Digest): BlobFile | undefined;
}

const HINT = 'repair the layout, or write it again with skopeo copy';

const MEDIA_TYPE = /^[\w.+-]{1,100}\/[\w.+-]{1,150}$/;
/** The annotation of a tag (OCI image-spec, annotations.md). */
export const REF_NAME = 'org.opencontainers.image.ref.name';

type Json = Record<string, unknown>;

/**
 * Opens the OCI image layout in `directory` (image-spec, image-layout.md). Reads index.json again
 * when it changes, and uses the last valid one while it is malformed. Follows no link below the
 * directory.
 * @throws PullError `option-malformed` if index.json is missing or not a regular file,
 *   `metadata-malformed` if it is not an image index
 */
export function openLayout(directory: string): LayoutReader {
  const path = join(directory, 'index.json');
  const blobs = guardDirectory(directory, 'blobs', 'sha256');
  let seen = versionOf(path);
  if (seen === undefined) {
    throw new PullError('option-malformed', `${directory} is not an OCI image layout: it has no index.json`, {
      hint: `create one with \`skopeo copy docker://IMAGE oci:${directory}:TAG\``,
    });
  }
  let tags = readTags(path);

  const current = (): Map<string, Digest> => {
    const version = versionOf(path);
    if (version === undefined || version === seen) return tags;
    try {
      tags = readTags(path);
      seen = version;
    } catch (error) {
      if (!(error instanceof PullError)) throw error;
    }
    return tags;
  };
  const blob = (digest: Digest): BlobFile | undefined => findBlob(blobs, digest);
  return {
    tags: () => [...current().keys()].sort(),
    manifest: (reference) => {
      const digest = isDigest(reference) ? reference : current().get(reference);
      return digest === undefined ? undefined : readManifest(digest, blob(digest));
    },
    blob,
  };
}

/** Returns a string that changes with every rewrite, or undefined without a file. */
function versionOf(path: string): string | undefined {
  const stat = lstatSync(path, { throwIfNoEntry: false, bigint: true });
  return stat === undefined ? undefined : `${stat.ino} ${stat.size} ${stat.mtimeNs}`;
}

function findBlob(blobs: string, digest: Digest): BlobFile | undefined {
  const isDirectory = (path: string) => lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  if (!isDirectory(dirname(blobs)) || !isDirectory(blobs)) return undefined;
  const path = join(blobs, digestHex(digest));
  const stat = statFile(path);
  return stat === undefined ? undefined : { path, sizeBytes: stat.size };
}

/**
 * Opens a blob without following links below the layout.
 * @throws UnfitFile, and the system's errors
 */
export function openBlob({ path }: BlobFile): number {
  return withGuarded(path, (at) => openFile(path, undefined, at));
}

/**
 * Returns the digest of each tag. A single manifest without a name, as `skopeo copy … oci:DIR`
 * writes it, is `latest`.
 */
function readTags(path: string): Map<string, Digest> {
  const manifests = parseObject(readSmall(path))?.['manifests'];
  if (!Array.isArray(manifests)) {
    throw new PullError('metadata-malformed', `${path} is not an OCI image index`, { hint: HINT });
  }
  const tags = new Map<string, Digest>();
  for (const entry of manifests as unknown[]) {
    const descriptor = asObject(entry);
    const digest = descriptor?.['digest'];
    if (!isDigest(digest)) continue;
    const name = asObject(descriptor?.['annotations'])?.[REF_NAME];
    if (typeof name === 'string') tags.set(name, digest);
    else if (manifests.length === 1) tags.set('latest', digest);
  }
  return tags;
}

function readManifest(digest: Digest, blob: BlobFile | undefined): StoredManifest | undefined {
  if (blob === undefined || blob.sizeBytes > MAX_MANIFEST_BYTES) return undefined;
  const { path } = blob;
  const bytes = withGuarded(path, (at) => readFile(path, MAX_MANIFEST_BYTES, at));
  const mediaType = manifestType(bytes);
  return mediaType === undefined ? undefined : { digest, mediaType, bytes };
}

/**
 * Returns the stated media type of a manifest, else one by its fields; undefined for another blob.
 */
function manifestType(bytes: Buffer): string | undefined {
  const manifest = parseObject(bytes);
  if (manifest === undefined) return undefined;
  if (manifest['schemaVersion'] === 1) return SCHEMA_1_TYPES[0];
  if (manifest['schemaVersion'] !== 2) return undefined;
  const stated = manifest['mediaType'];
  if (typeof stated === 'string' && MEDIA_TYPE.test(stated)) return stated;
  return Array.isArray(manifest['manifests']) ? OCI_INDEX : OCI_MANIFEST;
}

function readSmall(path: string): Buffer {
  try {
    return readFile(path, MAX_MANIFEST_BYTES);
  } catch (error) {
    if (!(error instanceof UnfitFile)) throw error;
    throw new PullError('option-malformed', error.message, {
      hint: HINT,
      cause: error,
    });
  }
}

function parseObject(bytes: Buffer): Json | undefined {
  try {
    return asObject(JSON.parse(bytes.toString('utf8')));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function asObject(value: unknown): Json | undefined {
  return isObject(value) ? value : undefined;
}

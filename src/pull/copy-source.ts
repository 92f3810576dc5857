import { createHash } from 'node:crypto';
import { type Digest, digestOfBytes } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { type Descriptor, type ImageIndex, type ImageManifest, parseManifest } from '../format/manifest.js';
import { choosePlatform, formatPlatform } from '../format/platform.js';
import type { RegistrySession } from '../registry/session.js';
import { noSuchPlatform } from './resolve.js';
import type { Settings } from './settings.js';

/** An index may name an index, whose entries must be manifests: deeper nests are nobody's image. */
const MOST_INDEX_LEVELS = 2;

/** Manifests and blobs of everything an index names: some dozen platforms of some dozen layers are a few hundred. */
const MOST_BLOBS = 10_000;

/** A manifest or an index, byte for byte. */
export interface CopyDocument {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** All that belongs to an image, or to all images of an index. */
export interface CopySource {
  /** What the copy is named after: the index, or the one manifest. */
  readonly root: CopyDocument;
  /** The root and every manifest below it. */
  readonly documents: readonly CopyDocument[];
  /** Configs and layers by digest, with their sizes. */
  readonly blobs: ReadonlyMap<Digest, number>;
  /** Which of the blobs are layers. */
  readonly layers: ReadonlySet<Digest>;
  /** Which platform was chosen, in words. */
  readonly platform: string;
}

/**
 * What `name` (a tag or a digest) stands for: of an index the manifest for the platform, or with `allPlatforms` all of it.
 * @throws PullError as `RegistrySession.getManifest`, `platform-not-found`, `metadata-malformed`, `unsupported`
 */
export async function readCopySource(
  session: RegistrySession,
  name: string,
  settings: Settings,
  allPlatforms: boolean,
): Promise<CopySource> {
  const first = await readDocument(session, name);
  if (first.manifest.kind === 'manifest') return sourceOf([first], 'its only platform');
  if (allPlatforms) return sourceOf(await readBelow(session, first, 1), 'all platforms');
  const { document, platform } = await choose(session, first.manifest, settings);
  return sourceOf([document], platform);
}

interface ReadDocument extends CopyDocument {
  readonly manifest: ImageIndex | ImageManifest;
}

async function readDocument(session: RegistrySession, name: string): Promise<ReadDocument> {
  const { bytes, mediaType } = await session.getManifest(name);
  const manifest = parseManifest(bytes, mediaType);
  const digest = digestOfBytes(createHash('sha256').update(bytes).digest());
  return { digest, mediaType: manifest.mediaType, bytes, manifest };
}

async function choose(
  session: RegistrySession,
  index: ImageIndex,
  settings: Settings,
): Promise<{ document: ReadDocument; platform: string }> {
  for (let level = 1; level <= MOST_INDEX_LEVELS; level++) {
    const chosen = choosePlatform(settings.platform, index.manifests);
    if (chosen === undefined) throw noSuchPlatform(settings, index);
    const document = await readDocument(session, chosen.digest);
    const platform = chosen.platform === undefined ? 'its only platform' : formatPlatform(chosen.platform);
    if (document.manifest.kind === 'manifest') return { document, platform };
    index = document.manifest;
  }
  throw tooDeep();
}

/** The document and all that it names, each once. */
async function readBelow(
  session: RegistrySession,
  document: ReadDocument,
  level: number,
): Promise<ReadDocument[]> {
  if (document.manifest.kind === 'manifest') return [document];
  if (level > MOST_INDEX_LEVELS) throw tooDeep();
  const documents = new Map([[document.digest, document]]);
  for (const { digest } of document.manifest.manifests) {
    if (documents.has(digest)) continue;
    for (const below of await readBelow(session, await readDocument(session, digest), level + 1)) {
      documents.set(below.digest, below);
    }
  }
  return [...documents.values()];
}

function sourceOf(documents: readonly ReadDocument[], platform: string): CopySource {
  const blobs = new Map<Digest, number>();
  const layers = new Set<Digest>();
  for (const { manifest } of documents) {
    if (manifest.kind !== 'manifest') continue;
    for (const blob of [manifest.config, ...manifest.layers]) addBlob(blobs, blob);
    for (const { digest } of manifest.layers) layers.add(digest);
  }
  return { root: documents[0]!, documents, blobs, layers, platform };
}

function addBlob(blobs: Map<Digest, number>, { digest, sizeBytes }: Descriptor): void {
  const known = blobs.get(digest);
  if (known !== undefined && known !== sizeBytes) {
    throw new PullError(
      'metadata-malformed',
      `blob ${digest} is said to have ${known} and ${sizeBytes} bytes`,
    );
  }
  if (blobs.size >= MOST_BLOBS) throw new PullError('unsupported', `the image has over ${MOST_BLOBS} blobs`);
  blobs.set(digest, sizeBytes);
}

function tooDeep(): PullError {
  return new PullError('unsupported', `the image index is nested deeper than ${MOST_INDEX_LEVELS} levels`);
}

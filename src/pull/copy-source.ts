import { createHash } from 'node:crypto';
import { type Digest, digestOfBytes } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { isForeign } from '../format/layer-format.js';
import { type Descriptor, type ImageIndex, type ImageManifest, parseManifest } from '../format/manifest.js';
import { choosePlatform, formatPlatform } from '../format/platform.js';
import type { BlobSource } from '../pool/messages.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import { foreignPlaces } from './foreign.js';
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

/** A config or a layer. */
export interface CopyBlob extends Omit<BlobSource, 'url'> {
  /** Where it is to be had, the first that serves. */
  readonly urls: readonly string[];
}

/** All that belongs to an image, or to all images of an index. */
export interface CopySource {
  /** What the copy is named after: the index, or the one manifest. */
  readonly root: CopyDocument;
  /** The root and every manifest below it. */
  readonly documents: readonly CopyDocument[];
  /** Configs and layers by digest, without what is left out. */
  readonly blobs: ReadonlyMap<Digest, CopyBlob>;
  /** Foreign layers that stay where their descriptors say they lie. */
  readonly leftOut: readonly Descriptor[];
  /** Which of the blobs are layers. */
  readonly layers: ReadonlySet<Digest>;
  /** Which platform was chosen, in words. */
  readonly platform: string;
}

/**
 * What `name` (a tag or a digest) stands for: of an index the manifest for the platform, or with `allPlatforms` all of it.
 * @throws PullError as `MirroredSession.getManifest`, `platform-not-found`, `metadata-malformed`, `unsupported`
 */
export async function readCopySource(
  session: MirroredSession,
  name: string,
  settings: Settings,
  allPlatforms: boolean,
): Promise<CopySource> {
  const { allowForeign } = settings;
  const first = await readDocument(session, name);
  if (first.manifest.kind === 'manifest')
    return sourceOf([first], 'its only platform', session, allowForeign);
  if (allPlatforms) {
    return sourceOf(await readBelow(session, first, 1), 'all platforms', session, allowForeign);
  }
  const { document, platform } = await choose(session, first.manifest, settings);
  return sourceOf([document], platform, session, allowForeign);
}

interface ReadDocument extends CopyDocument {
  readonly manifest: ImageIndex | ImageManifest;
}

async function readDocument(session: MirroredSession, name: string): Promise<ReadDocument> {
  const { bytes, mediaType } = await session.getManifest(name);
  const manifest = parseManifest(bytes, mediaType);
  const digest = digestOfBytes(createHash('sha256').update(bytes).digest());
  return { digest, mediaType: manifest.mediaType, bytes, manifest };
}

async function choose(
  session: MirroredSession,
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
  session: MirroredSession,
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

function sourceOf(
  documents: readonly ReadDocument[],
  platform: string,
  session: Pick<MirroredSession, 'blobUrl'>,
  allowForeign: boolean,
): CopySource {
  const blobs = new Map<Digest, CopyBlob>();
  const layers = new Set<Digest>();
  const leftOut = new Map<Digest, Descriptor>();
  for (const { manifest } of documents) {
    if (manifest.kind !== 'manifest') continue;
    addBlob(blobs, fromRegistry(manifest.config, session));
    for (const layer of manifest.layers) {
      const isElsewhere = isForeign(layer) && layer.urls !== undefined && layer.urls.length > 0;
      if (isElsewhere && !allowForeign) {
        leftOut.set(layer.digest, layer);
        continue;
      }
      addBlob(blobs, isElsewhere ? fromElsewhere(layer) : fromRegistry(layer, session));
      layers.add(layer.digest);
    }
  }
  return { root: documents[0]!, documents, blobs, leftOut: [...leftOut.values()], layers, platform };
}

function fromRegistry(
  { digest, sizeBytes }: Descriptor,
  session: Pick<MirroredSession, 'blobUrl'>,
): CopyBlob {
  return { digest, sizeBytes, urls: [session.blobUrl(digest)] };
}

function fromElsewhere(layer: Descriptor): CopyBlob {
  const { digest, sizeBytes } = layer;
  return { digest, sizeBytes, urls: foreignPlaces(layer), anonymous: true };
}

function addBlob(blobs: Map<Digest, CopyBlob>, blob: CopyBlob): void {
  const { digest, sizeBytes } = blob;
  const known = blobs.get(digest);
  if (known !== undefined && known.sizeBytes !== sizeBytes) {
    throw new PullError(
      'metadata-malformed',
      `blob ${digest} is said to have ${known.sizeBytes} and ${sizeBytes} bytes`,
    );
  }
  if (blobs.size >= MOST_BLOBS) throw new PullError('unsupported', `the image has over ${MOST_BLOBS} blobs`);
  if (known === undefined) blobs.set(digest, blob);
}

function tooDeep(): PullError {
  return new PullError('unsupported', `the image index is nested deeper than ${MOST_INDEX_LEVELS} levels`);
}

import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { checkConfigType, parseConfig } from '../format/image-config.js';
import { isForeign } from '../format/layer-format.js';
import { type Descriptor, type ImageIndex, type ImageManifest, parseManifest } from '../format/manifest.js';
import { completePlatform, formatPlatform, type Platform } from '../format/platform.js';
import { foreignUrlsOf } from '../pull/blob-locations.js';
import { chooseManifest, MAX_INDEX_LEVELS, tooDeep } from '../pull/image-index.js';
import type { ManifestBytes } from '../pull/oci-layout.js';
import type { Settings } from '../pull/pull-options.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import type { BlobSource } from '../registry/range-client.js';
import { sha256Of } from '../store/image-record.js';

/**
 * Manifests and blobs of all that an index names: some dozen platforms of some dozen layers are a
 * few hundred.
 */
const MAX_MEMBERS = 10_000;

/**
 * All manifests together, in memory until the image is named: 4,096, the limit of an index, of 16
 * KiB each.
 */
const MAX_DOCUMENT_BYTES = 64 * 2 ** 20;

/** Where documents are read from. */
export type DocumentSource = Pick<MirroredSession, 'getManifest' | 'getBlob' | 'blobUrl'>;

/** A config or a layer. */
export interface CopyBlob extends Omit<BlobSource, 'url'> {
  /** URLs to try in order. */
  readonly urls: readonly string[];
}

type LeftOut = Pick<Descriptor, 'digest' | 'urls'>;

/** The documents and blobs of an image, or of all images of an index. */
export interface CopySource {
  /** The index or manifest that the copy is named after. */
  readonly root: ManifestBytes;
  /** The root and every manifest below it. */
  readonly documents: readonly ManifestBytes[];
  /** Configs and layers by digest, without those in `leftOut`. */
  readonly blobs: ReadonlyMap<Digest, CopyBlob>;
  /** Foreign layers that are not copied. */
  readonly leftOut: readonly LeftOut[];
  /** Which of the blobs are layers. */
  readonly layers: ReadonlySet<Digest>;
  /** The chosen platform, in words. */
  readonly platform: string;
}

/**
 * Reads the documents that `name` (a tag or a digest) names: for an index, the manifest for the
 * platform, or everything with `allPlatforms`.
 * @throws PullError as `MirroredSession.getManifest`, `platform-not-found`, `metadata-malformed`,
 *   `unsupported`
 */
export async function readCopySource(
  session: DocumentSource,
  name: string,
  settings: Settings,
  allPlatforms: boolean,
  warn: (message: string) => void,
): Promise<CopySource> {
  const members = new Members(session, settings.allowForeign);
  const first = await readDocument(session, name);
  if (first.manifest.kind === 'manifest') {
    members.add(first);
    return members.source('its only platform');
  }
  if (allPlatforms) {
    await addAll(members, session, first, 1, warn);
    return members.source('all platforms');
  }
  const { document, platform } = await chooseManifest(first.manifest, settings.platform, {
    readDocument: (digest) => readDocument(session, digest),
    readPlatform: (manifest) => readPlatform(session, manifest),
    warn,
  });
  members.add(document);
  return members.source(formatPlatform(completePlatform(platform, settings.platform)));
}

interface ReadDocument extends ManifestBytes {
  readonly manifest: ImageIndex | ImageManifest;
}

async function readDocument(session: DocumentSource, name: string): Promise<ReadDocument> {
  const { bytes, mediaType } = await session.getManifest(name);
  const manifest = parseManifest(bytes, mediaType);
  const digest = sha256Of(bytes);
  return { digest, mediaType: manifest.mediaType, bytes, manifest };
}

async function readPlatform(session: DocumentSource, { config }: ImageManifest): Promise<Platform> {
  checkConfigType(config);
  return parseConfig(await session.getBlob(config.digest, config.sizeBytes), config.mediaType);
}

/**
 * Adds a document and all that it names, once each. Stops reading at the first that exceeds a
 * limit.
 */
async function addAll(
  members: Members,
  session: DocumentSource,
  document: ReadDocument,
  level: number,
  warn: (message: string) => void,
): Promise<void> {
  members.add(document);
  if (document.manifest.kind === 'manifest') return;
  if (level > MAX_INDEX_LEVELS) throw tooDeep();
  for (const { message } of document.manifest.unreadable) {
    warn(`an entry of the index is left out, as it cannot be read: ${message}`);
  }
  for (const { digest } of document.manifest.manifests) {
    if (members.has(digest)) continue;
    await addAll(members, session, await readDocument(session, digest), level + 1, warn);
  }
}

/** Collects the documents and blobs of a copy. */
class Members {
  readonly #session: Pick<MirroredSession, 'blobUrl'>;
  readonly #allowForeign: boolean;
  readonly #documents = new Map<Digest, ManifestBytes>();
  readonly #blobs = new Map<Digest, CopyBlob>();
  readonly #layers = new Set<Digest>();
  readonly #leftOut = new Map<Digest, LeftOut>();
  #documentBytes = 0;

  constructor(session: Pick<MirroredSession, 'blobUrl'>, allowForeign: boolean) {
    this.#session = session;
    this.#allowForeign = allowForeign;
  }

  has(digest: Digest): boolean {
    return this.#documents.has(digest);
  }

  /**
   * Adds a document, and the blobs that a manifest names.
   * @throws PullError `unsupported` beyond a limit, `metadata-malformed` for a blob of two sizes,
   *   as `foreignUrlsOf`
   */
  add({ digest, mediaType, bytes, manifest }: ReadDocument): void {
    this.#documentBytes += bytes.length;
    if (this.#documentBytes > MAX_DOCUMENT_BYTES) throw tooMuch(`${MAX_DOCUMENT_BYTES} bytes of manifests`);
    this.#documents.set(digest, { digest, mediaType, bytes });
    this.#checkCount();
    if (manifest.kind !== 'manifest') return;
    this.#addBlob(fromRegistry(manifest.config, this.#session));
    for (const layer of manifest.layers) this.#addLayer(layer);
  }

  #addLayer(layer: Descriptor): void {
    const { digest, urls = [] } = layer;
    const isElsewhere = isForeign(layer) && urls.length > 0;
    if (isElsewhere && !this.#allowForeign) {
      this.#leftOut.set(digest, { digest, urls });
      this.#checkCount();
      return;
    }
    this.#addBlob(isElsewhere ? fromElsewhere(layer) : fromRegistry(layer, this.#session));
    this.#layers.add(digest);
  }

  #addBlob(blob: CopyBlob): void {
    const { digest, sizeBytes } = blob;
    const known = this.#blobs.get(digest);
    if (known !== undefined && known.sizeBytes !== sizeBytes) {
      const message = `the manifests state two sizes for blob ${digest}: ${known.sizeBytes} and ${sizeBytes} bytes`;
      throw new PullError('metadata-malformed', message, { layer: digest });
    }
    if (known === undefined) this.#blobs.set(digest, blob);
    this.#checkCount();
  }

  #checkCount(): void {
    const count = this.#documents.size + this.#blobs.size + this.#leftOut.size;
    if (count > MAX_MEMBERS) throw tooMuch(`${MAX_MEMBERS} manifests and blobs`);
  }

  /** The source; the first document added is its root. */
  source(platform: string): CopySource {
    const documents = [...this.#documents.values()];
    const leftOut = [...this.#leftOut.values()];
    return { root: documents[0]!, documents, blobs: this.#blobs, leftOut, layers: this.#layers, platform };
  }
}

function fromRegistry(
  { digest, sizeBytes }: Descriptor,
  session: Pick<MirroredSession, 'blobUrl'>,
): CopyBlob {
  return { digest, sizeBytes, urls: [session.blobUrl(digest)] };
}

function fromElsewhere(layer: Descriptor): CopyBlob {
  const { digest, sizeBytes } = layer;
  return { digest, sizeBytes, urls: foreignUrlsOf(layer), anonymous: true };
}

function tooMuch(limit: string): PullError {
  return new PullError('unsupported', `the image has more than ${limit}, the limit of a copy`, {
    hint: 'copy one platform at a time: choose it with --platform, without --all-platforms',
  });
}

import { damagedHint } from '../files/storage-error.js';
import { type Digest, isDigest } from '../format/digest.js';
import { listSome, PullError, withHint } from '../format/error.js';
import { MAX_CONFIG_BYTES } from '../format/image-config.js';
import { leavesSizeOut, MAX_MANIFEST_BYTES, OCI_INDEX } from '../format/manifest.js';
import type { LocalImage } from '../format/reference.js';
import { type Fields, isObject, strictParser } from '../format/strict-json.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import { sha256Of } from '../store/image-record.js';
import { type LayoutFiles, openLayoutDirectory, openLayoutFiles } from './layout-files.js';

/** A layout has no host; its blobs have file URLs. */
const NO_HOST = { transport: { host: '', tlsVerify: true, environment: {} }, repository: '' };

/**
 * A session that reads from an OCI layout on this machine, without network and credentials.
 * `received` counts the bytes of manifests and configs.
 */
export function createLocalSession(
  image: LocalImage,
  received: (bytes: number) => void = () => {},
): MirroredSession {
  let opened: Promise<LayoutFiles> | undefined;
  let files: LayoutFiles | undefined;
  const open = async (): Promise<LayoutFiles> => {
    opened ??= openLayoutFiles(image);
    files = await opened;
    return files;
  };
  return {
    endpoints: [NO_HOST],
    async open() {
      await open();
    },
    async getManifest(name) {
      const layout = await open();
      const { digest, mediaType } = isDigest(name)
        ? { digest: name, mediaType: undefined }
        : choose(layout, name, namedIn(layout.index(), layout.indexPath));
      const bytes = verified(layout, digest, MAX_MANIFEST_BYTES);
      received(bytes.length);
      return { bytes, mediaType };
    },
    headManifest: async () => undefined,
    async getBlob(digest, sizeBytes) {
      const bytes = verified(await open(), digest, MAX_CONFIG_BYTES);
      received(bytes.length);
      if (leavesSizeOut({ digest, sizeBytes }) || bytes.length === sizeBytes) return bytes;
      throw new PullError('metadata-malformed', `blob ${digest} has ${bytes.length} bytes, not ${sizeBytes}`);
    },
    async getTags() {
      const layout = await open();
      return tagsOf(namedIn(layout.index(), layout.indexPath));
    },
    blobUrl(digest) {
      if (files === undefined) throw new PullError('internal', `${image.path} was not opened`);
      return files.blobUrl(digest);
    },
    access: async () => ({ origin: '', value: undefined, expiresAtMs: Number.POSITIVE_INFINITY }),
    disconnect() {},
    close() {},
  };
}

/**
 * The tags of the layout in a directory, sorted.
 * @throws PullError as `openLayoutDirectory`; `metadata-malformed`
 */
export function listLayoutTags(directory: string): string[] {
  const layout = openLayoutDirectory(directory);
  return tagsOf(namedIn(layout.index(), layout.indexPath));
}

/** Reads and verifies a small blob. @throws PullError `digest-mismatch`; as `LayoutFiles.read` */
function verified(layout: LayoutFiles, digest: Digest, maxBytes: number): Buffer {
  const bytes = layout.read(digest, maxBytes);
  const actual = sha256Of(bytes);
  if (actual === digest) return bytes;
  throw new PullError(
    'digest-mismatch',
    `${layout.path} has other bytes for ${digest}: their digest is ${actual}`,
    { hint: damagedHint(layout.path) },
  );
}

/**
 * The image with this tag, or the only image for an empty one.
 * @throws PullError `image-not-found`, `reference-malformed`
 */
function choose({ path }: LayoutFiles, tag: string, entries: readonly NamedManifest[]): NamedManifest {
  const named = tag === '' ? entries : entries.filter((entry) => entry.tag === tag);
  const [first, ...others] = named;
  if (first !== undefined && others.every(({ digest }) => digest === first.digest)) return first;
  const tags = tagsOf(entries);
  const hint =
    tags.length === 0
      ? 'name it by its digest: zpull takes oci:DIR@sha256:…'
      : `its tags are ${listSome(tags)}`;
  if (first === undefined) {
    const message = tag === '' ? `${path} has no image` : `${path} has no image with the tag ${tag}`;
    throw new PullError('image-not-found', message, { hint });
  }
  const message =
    tag === ''
      ? `${path} has ${entries.length} images, and no tag says which`
      : `${path} has several images with the tag ${tag}`;
  throw new PullError('reference-malformed', message, { hint });
}

/** The tags of these images, sorted. */
function tagsOf(entries: readonly NamedManifest[]): string[] {
  return [...new Set(entries.flatMap((entry) => entry.tag ?? []))].sort();
}

/** A manifest or an index, byte for byte. */
export interface ManifestBytes {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** Content of the file that marks a directory as a layout (OCI image-spec, image-layout.md). */
export const OCI_LAYOUT = Buffer.from('{"imageLayoutVersion":"1.0.0"}');

const REF_NAME = 'org.opencontainers.image.ref.name';

const parseIndex = strictParser({ manifests: { digest: null, annotations: null } });

/**
 * Adds `root`, with or without a tag, to an index.json. Replaces the entry with the same tag, or
 * without a tag the one with the same digest.
 * @throws PullError `metadata-malformed` when `before` is no image index
 */
export function nameInIndex(
  before: Buffer | undefined,
  root: ManifestBytes,
  tag: string | undefined,
): Buffer {
  const others =
    before === undefined ? [] : entriesBefore(before).filter((entry) => !isSame(entry, root, tag));
  const entry = {
    mediaType: root.mediaType,
    digest: root.digest,
    size: root.bytes.length,
    ...(tag !== undefined && { annotations: { [REF_NAME]: tag } }),
  };
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [...others, entry] };
  return Buffer.from(JSON.stringify(index));
}

function isSame(entry: Fields, root: ManifestBytes, tag: string | undefined): boolean {
  const name = tagOf(entry);
  return tag === undefined ? name === undefined && entry['digest'] === root.digest : name === tag;
}

function tagOf({ annotations }: Fields): unknown {
  return isObject(annotations) ? annotations[REF_NAME] : undefined;
}

/** An image in the index of a layout. */
interface NamedManifest {
  readonly digest: Digest;
  readonly mediaType: string | undefined;
  readonly tag: string | undefined;
}

/**
 * The images in the index.json at `path`, without entries whose digest is unreadable.
 * @throws PullError `metadata-malformed` when it is no image index
 */
function namedIn(index: Buffer, path: string): NamedManifest[] {
  return entriesOf(index, path).flatMap((entry) => {
    const { digest, mediaType } = entry;
    if (!isDigest(digest)) return [];
    const tag = tagOf(entry);
    return {
      digest,
      mediaType: typeof mediaType === 'string' ? mediaType : undefined,
      tag: typeof tag === 'string' ? tag : undefined,
    };
  });
}

function entriesBefore(bytes: Buffer): Fields[] {
  try {
    return entriesOf(bytes, 'The index.json of the destination');
  } catch (error) {
    throw withHint(error, 'choose another destination, or repair that file');
  }
}

function entriesOf(bytes: Buffer, what: string): Fields[] {
  const index = parseIndex(bytes, what);
  const manifests = isObject(index) ? index['manifests'] : undefined;
  if (Array.isArray(manifests) && manifests.every(isObject)) return manifests;
  throw new PullError('metadata-malformed', `${what} is not an OCI image index`);
}

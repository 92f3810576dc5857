import { type Digest, isDigest } from '../format/digest.js';
import { PullError, withHint } from '../format/error.js';
import { OCI_INDEX } from '../format/manifest.js';
import { type Fields, isObject, strictParser } from '../format/strict-json.js';

/** A manifest or an index, byte for byte. */
export interface ManifestBytes {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** Content of the file that marks a directory as a layout (OCI image-spec, image-layout.md). */
export const OCI_LAYOUT = Buffer.from('{"imageLayoutVersion":"1.0.0"}');

/** Maximum size of index.json; one with 10,000 images has 3 MB. */
export const MAX_INDEX_BYTES = 16 * 2 ** 20;

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
export interface NamedManifest {
  readonly digest: Digest;
  readonly mediaType: string | undefined;
  readonly tag: string | undefined;
}

/**
 * The images in the index.json at `path`, without entries whose digest is unreadable.
 * @throws PullError `metadata-malformed` when it is no image index
 */
export function namedIn(index: Buffer, path: string): NamedManifest[] {
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

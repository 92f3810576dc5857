import { createHash } from 'node:crypto';
import { damagedHint } from '../files/layout-error.js';
import { type Digest, digestOfBytes, isDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { MAX_CONFIG_BYTES } from '../format/image-config.js';
import type { LocalImage } from '../format/local-image.js';
import { leavesSizeOut, MAX_MANIFEST_BYTES } from '../format/manifest.js';
import { listSome } from '../format/text.js';
import type { MirroredSession } from '../registry/mirrored-session.js';
import { type LayoutFiles, openLayoutFiles } from './layout-files.js';
import { type NamedManifest, namedIn } from './layout-index.js';

/** A layout has no host; its blobs have file URLs. */
const NO_HOST = { transport: { host: '', tlsVerify: true, environment: {} }, repository: '' };

/** A session that reads from an OCI layout on this machine, without network and credentials. */
export function createLocalSession(image: LocalImage): MirroredSession {
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
      return { bytes: verified(layout, digest, MAX_MANIFEST_BYTES), mediaType };
    },
    headManifest: async () => undefined,
    async getBlob(digest, sizeBytes) {
      const bytes = verified(await open(), digest, MAX_CONFIG_BYTES);
      if (leavesSizeOut({ digest, sizeBytes }) || bytes.length === sizeBytes) return bytes;
      throw new PullError('metadata-malformed', `blob ${digest} has ${bytes.length} bytes, not ${sizeBytes}`);
    },
    blobUrl(digest) {
      if (files === undefined) throw new PullError('internal', `${image.path} was not opened`);
      return files.blobUrl(digest);
    },
    access: async () => ({ origin: '', value: undefined, expiresAtMs: Number.POSITIVE_INFINITY }),
    close() {},
  };
}

/** Reads and verifies a small blob. @throws PullError `digest-mismatch`; as `LayoutFiles.read` */
function verified(layout: LayoutFiles, digest: Digest, maxBytes: number): Buffer {
  const bytes = layout.read(digest, maxBytes);
  const actual = digestOfBytes(createHash('sha256').update(bytes).digest());
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
  const tags = [...new Set(entries.flatMap((entry) => entry.tag ?? []))].sort();
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

import { openStoreToRead } from '../store/paths.js';
import type { RunOptions } from './pull-options.js';
import { chooseImage, type ReadDocument, readNamed } from './resolve-image.js';
import { withSession } from './with-session.js';

/** What a reference names. */
export interface Resolution {
  /** The full reference. */
  readonly image: string;
  /** The digest of the manifest for the platform. */
  readonly digest: string;
  /** The digest of the index that names the manifest, if there is one. */
  readonly indexDigest?: string;
  readonly mediaType: string;
}

/** A manifest or an index, byte for byte. */
export interface ManifestDocument {
  /** The full reference. */
  readonly image: string;
  readonly digest: string;
  readonly mediaType: string;
  /** They hash to the digest. */
  readonly bytes: Buffer;
}

/**
 * Resolves a reference to the digest of the manifest for a platform. For a tag that was pulled
 * before, a HEAD request suffices while it has not moved; for a digest in the store, none. Writes
 * nothing; the store need not exist.
 * @throws PullError as `inspectImage`
 */
export function resolveReference(reference: string, options: RunOptions): Promise<Resolution> {
  return read(reference, options, (image, chosen, root) => ({
    image,
    digest: chosen.digest,
    ...(root.manifest.kind === 'index' && { indexDigest: root.digest }),
    mediaType: chosen.manifest.mediaType,
  }));
}

/**
 * Reads the manifest or the index that a reference names, or with `isChosen` the manifest for the
 * platform. Writes nothing; the store need not exist.
 * @throws PullError as `inspectImage`
 */
export function readManifestOf(
  reference: string,
  options: RunOptions,
  isChosen: boolean,
): Promise<ManifestDocument> {
  const result = (image: string, { digest, bytes, manifest }: ReadDocument): ManifestDocument => ({
    image,
    digest,
    mediaType: manifest.mediaType,
    bytes,
  });
  return read(reference, options, result, isChosen);
}

function read<T>(
  reference: string,
  options: RunOptions,
  resultOf: (image: string, chosen: ReadDocument, root: ReadDocument) => T,
  isChosen = true,
): Promise<T> {
  return withSession(reference, options, 'the request was interrupted', (session) => ({
    async run() {
      const { source, settings, progress } = session;
      const warn = (message: string) => progress.emit({ event: 'warning', message });
      const paths = openStoreToRead(settings.store, warn);
      return session.resolve(async (registry) => {
        const root = await readNamed(registry, { ...source, settings }, paths);
        const chosen = isChosen ? await chooseImage(registry, root, settings.platform, paths, warn) : root;
        return resultOf(source.image, chosen, root);
      });
    },
  }));
}

import { PullError } from '../format/error.js';
import { formatReference, withoutTransport } from '../format/reference.js';
import type { PullOptions, RunOptions } from './pull-options.js';
import { withSession } from './with-session.js';

/** The tags of a repository. */
export interface TagListing {
  /** `host/repository`, or `oci:DIR` or `oci-archive:FILE` with an absolute path. */
  readonly repository: string;
  /** Each once. In the registry's order; those of a layout are sorted. */
  readonly tags: readonly string[];
}

/** Options of a pull that decide how a registry is asked. */
export type TagOptions = Pick<
  PullOptions,
  | 'patienceMs'
  | 'connectTimeoutMs'
  | 'idleTimeoutMs'
  | 'answerTimeoutMs'
  | 'plainHttp'
  | 'tlsVerify'
  | 'certDir'
  | 'credentials'
  | 'authfile'
  | 'debug'
  | 'signal'
  | 'onEvent'
>;

/**
 * Lists the tags of a repository, all pages, or of an OCI layout (`oci:DIR`, `oci-archive:FILE`).
 * Short names expand as those of images. Mirrors are not asked: they list only what they have.
 * @throws PullError `reference-malformed`, also for a name with a tag or a digest;
 *   `image-not-found`, `unauthorized`, `network-hopeless`, `redirect-refused`,
 *   `answer-unexpected`, `metadata-malformed`
 */
export function listTags(
  repository: string,
  options: TagOptions & Pick<RunOptions, 'shared'> = {},
): Promise<TagListing> {
  // The store is not opened.
  const given = { ...options, store: '.' };
  return withSession(repository, given, 'the listing was interrupted', (session) => ({
    async run() {
      const { location, image } = session.source;
      const name = withoutTransport(repository);
      const isLocal = 'transport' in location;
      const isTagged = isLocal ? location.tag !== undefined : name.includes(':', name.lastIndexOf('/') + 1);
      if (isTagged || location.digest !== undefined) {
        throw new PullError('reference-malformed', `"${name}" names one image, not a repository`, {
          hint: 'leave out what stands behind the name of the repository',
        });
      }
      const tags = await session.ask((registry) => registry.getTags());
      if (isLocal) return { repository: image, tags };
      const { host, repository: path } = location;
      return { repository: formatReference({ host, repository: path }), tags };
    },
  }));
}

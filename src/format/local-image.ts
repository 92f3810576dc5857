import { type Digest, isDigest } from './digest.js';
import { PullError } from './error.js';

/** An image in a local OCI layout: a directory, or a tar of one. */
export interface LocalImage {
  /** As containers-transports(5) names them. */
  readonly transport: 'oci' | 'oci-archive';
  /** Absolute. */
  readonly path: string;
  /** A name in the layout's index. Without one and without a digest: the only image there. */
  readonly tag?: string;
  /** Takes precedence over the tag. */
  readonly digest?: Digest;
}

const TRANSPORT = /^(oci|oci-archive):(.*)$/s;
const DIGEST = /@(sha256:[0-9a-f]{64})$/;
/** A name in a layout (OCI image-spec, annotations.md, "org.opencontainers.image.ref.name"). */
const REF_NAME = /^[A-Za-z0-9]+(?:[-._:@/+]+[A-Za-z0-9]+)*$/;

/** A record of the store accepts names of up to 4,096 characters; no path on Linux is longer. */
const MAX_LOCAL_NAME = 4096;

const HINT = 'Write it as oci:DIR:TAG, oci-archive:FILE:TAG, or with @sha256:… in place of the tag.';

/**
 * Parses `oci:DIR[:TAG][@DIGEST]` or `oci-archive:FILE[:TAG][@DIGEST]`; undefined for a text
 * without such a prefix. The first colon behind the prefix ends the path, as in
 * containers-transports(5). `absolute` makes a path absolute.
 * @throws PullError `reference-malformed`
 */
export function parseLocalImage(text: string, absolute: (path: string) => string): LocalImage | undefined {
  const [, transport, rest = ''] = TRANSPORT.exec(text) ?? [];
  if (transport !== 'oci' && transport !== 'oci-archive') return undefined;
  const digest = DIGEST.exec(rest)?.[1];
  const place = digest === undefined ? rest : rest.slice(0, -`@${digest}`.length);
  const [path = '', ...names] = place.split(':');
  const tag = names.length === 0 ? undefined : names.join(':');
  if (path === '') throw malformed(text, 'it names no path');
  if (transport === 'oci' && /^\/\/[^/]/.test(path)) {
    const hint =
      'An image of a registry is named without oci://; for a layout in a directory write oci:DIR:TAG.';
    throw malformed(text, 'it starts with oci://, as Helm names what a registry has', hint);
  }
  if (tag !== undefined && !REF_NAME.test(tag)) throw malformed(text, `${JSON.stringify(tag)} is not a tag`);
  const image: LocalImage = {
    transport,
    path: absolute(path),
    ...(tag !== undefined && { tag }),
    ...(isDigest(digest) && { digest }),
  };
  if (formatLocalImage(image).length > MAX_LOCAL_NAME) {
    throw malformed(text, `it is longer than ${MAX_LOCAL_NAME} characters`);
  }
  return image;
}

/** Returns the complete name of a local image, which `parseLocalImage` reads. */
export function formatLocalImage({ transport, path, tag, digest }: LocalImage): string {
  return `${transport}:${path}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
}

function malformed(text: string, problem: string, hint = HINT): PullError {
  const shown = JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
  return new PullError('reference-malformed', `${shown} is no image reference: ${problem}`, { hint });
}

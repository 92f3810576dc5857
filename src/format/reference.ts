import { type Digest, isDigest, parseDigest } from './digest.js';
import { PullError } from './error.js';

/** An expanded image name. Without a tag and a digest the tag is `latest`. */
export interface Reference {
  /** Host name or address, with the port if there is one; `docker.io` for Docker Hub. */
  readonly host: string;
  readonly repository: string;
  readonly tag?: string;
  /** Takes precedence over the tag. */
  readonly digest?: Digest;
}

/** Docker Hub, where short names are looked up, and its former name. */
const DEFAULT_HOST = 'docker.io';
const LEGACY_HOST = 'index.docker.io';
/** Namespace of a Docker Hub repository written without one. */
const OFFICIAL = 'library/';
const DEFAULT_TAG = 'latest';
/**
 * Limits of distribution/reference: a repository's path, and a host name by RFC 1035 with its port.
 */
const MAX_REPOSITORY = 255;
const MAX_HOST = 255 + ':65535'.length;
/** Name, tag and digest together cannot be longer. */
const MAX_REFERENCE = 1024;

const DOCKER_TRANSPORT = 'docker://';

/**
 * Transports of other programs (containers-transports(5)) and how they are written. Docker Hub has
 * no official image of these names.
 */
const OTHER_TRANSPORTS: Readonly<Record<string, string>> = {
  'containers-storage': 'containers-storage:NAME:TAG',
  dir: 'dir:DIR',
  'docker-archive': 'docker-archive:FILE',
  'docker-daemon': 'docker-daemon:NAME:TAG',
  ostree: 'ostree:NAME@REPOSITORY',
  sif: 'sif:FILE',
  tarball: 'tarball:FILE',
};
/** The name of a layout directory in oras and BuildKit. */
const LAYOUT_TRANSPORT = 'oci-layout';

const LABEL = '[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?';
const HOST = new RegExp(`^(?:${LABEL}(?:\\.${LABEL})*|\\[[0-9A-Fa-f:]+\\])(?::(\\d{1,5}))?$`);
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const DIGEST = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;

/**
 * Parses a reference, with or without `docker://` before it, and expands it as Docker does (the
 * grammar of distribution/reference): `alpine` is `docker.io/library/alpine:latest`. The first
 * component is a host if it has a dot, a colon or an upper-case letter, or is `localhost`. `expand`
 * may return another full name for a name without a host.
 * @throws PullError `reference-malformed` saying what is wrong, `unsupported` for a digest other
 *   than sha256
 */
export function parseReference(
  written: string,
  expand: (name: string) => string | undefined = () => undefined,
): Reference {
  const text = withoutTransport(written);
  refuseOtherForms(text, text !== written);
  const at = text.indexOf('@');
  const name = at < 0 ? text : text.slice(0, at);
  const digest = at < 0 ? undefined : referenceDigest(text, text.slice(at + 1));
  // A colon after the last slash starts the tag; before it, a port.
  const colon = name.indexOf(':', name.lastIndexOf('/') + 1);
  const path = colon < 0 ? name : name.slice(0, colon);
  const tag = colon < 0 ? undefined : name.slice(colon + 1);
  if (tag !== undefined && !TAG.test(tag)) {
    throw malformed(text, `${JSON.stringify(tag)} is not a tag`, TAG_HINT);
  }
  const { host, repository } = splitHost(path, expand);
  checkHost(text, host);
  checkRepository(text, repository);
  if (digest !== undefined) return { host, repository, ...(tag === undefined ? {} : { tag }), digest };
  return { host, repository, tag: tag ?? DEFAULT_TAG };
}

const TAG_HINT = 'A tag has up to 128 letters, digits, dots, dashes and underscores, no dot or dash first.';

/** Whether a text can be the tag of an image in a registry. */
export function isTag(text: string): boolean {
  return TAG.test(text);
}

/**
 * Returns a name as docker and podman write it, without the `docker://` by which skopeo marks names
 * in registries.
 */
export function withoutTransport(text: string): string {
  return text.startsWith(DOCKER_TRANSPORT) ? text.slice(DOCKER_TRANSPORT.length) : text;
}

/** Returns `host/repository[:tag][@digest]`, which `parseReference` reads. */
export function formatReference({ host, repository, tag, digest }: Reference): string {
  return `${host}/${repository}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
}

/**
 * Returns a location to be shown: what precedes an @ may be a user name and password, as in a URL.
 */
export function withoutUser(location: string): string {
  return location.replace(/^.*@/s, '…@');
}

/** Refuses forms of other programs, image IDs, and empty or too long texts. */
function refuseOtherForms(text: string, isInRegistry: boolean): void {
  if (text === '')
    throw malformed(text, 'it is empty', 'Name an image, like alpine or ghcr.io/owner/name:tag.');
  if (text.length > MAX_REFERENCE) {
    const shown = `${text.slice(0, 64)}…`;
    throw malformed(shown, `it is ${text.length} characters long; at most ${MAX_REFERENCE} are allowed`);
  }
  if (!isInRegistry) refuseTransports(text);
  const scheme = /^[A-Za-z][A-Za-z0-9+-]*:\/\//.exec(text)?.[0];
  if (scheme !== undefined) {
    throw malformed(`${scheme}…`, `it starts with ${scheme}`, `Leave out ${scheme} and try again.`);
  }
  if (/^[0-9a-f]{64}$/.test(text)) {
    throw malformed(text, '64 hex digits could be an image ID', 'Write NAME@sha256:HEX for a digest.');
  }
}

/** Names that say where else than in a registry an image is. */
function refuseTransports(text: string): void {
  const [, transport = ''] = /^([a-z-]+):/.exec(text) ?? [];
  if (transport === LAYOUT_TRANSPORT)
    throw malformed(text, 'a layout in a directory is named as oci:DIR', 'Write oci:DIR:TAG.');
  if (!Object.hasOwn(OTHER_TRANSPORTS, transport)) return;
  throw malformed(
    text,
    `zpull reads no images from ${transport}:`,
    `Make a layout of it with skopeo copy ${OTHER_TRANSPORTS[transport]} oci:DIR:TAG, and name that: oci:DIR:TAG.`,
  );
}

function referenceDigest(text: string, digest: string): Digest {
  if (!DIGEST.test(digest)) {
    const shown = text.slice(text.lastIndexOf('@') + 1);
    const hint = 'After an @ comes sha256: and 64 hex digits; credentials are given apart.';
    throw malformed(withoutUser(text), `${JSON.stringify(shown)} is not a digest`, hint);
  }
  if (digest.startsWith('sha256:')) {
    if (digest.length !== 'sha256:'.length + 64) {
      const digits = digest.length - 'sha256:'.length;
      throw malformed(text, `its digest has ${digits} hex digits instead of 64`);
    }
    if (/[A-F]/.test(digest)) throw malformed(text, 'its digest has upper-case hex digits');
  } else if (!/^(sha512:[0-9a-f]{128}|blake3:[0-9a-f]{64})$/.test(digest)) {
    throw malformed(text, `its digest is no sha256`);
  }
  return parseDigest(digest, 'The digest of the reference');
}

/** Splits a name without tag and digest as Docker does, and expands short ones. */
function splitHost(
  path: string,
  expand: (name: string) => string | undefined,
): { host: string; repository: string } {
  const slash = path.indexOf('/');
  const first = path.slice(0, Math.max(slash, 0));
  const isHost = /[.:A-Z]/.test(first) || first === 'localhost';
  const full = isHost ? undefined : expand(path);
  // The expansion is a full name, or on Docker Hub: nothing is expanded twice.
  if (full !== undefined) return splitHost(full, () => undefined);
  const host = !isHost || first === LEGACY_HOST ? DEFAULT_HOST : first;
  const repository = isHost ? path.slice(slash + 1) : path;
  const official = host === DEFAULT_HOST && !repository.includes('/');
  return { host, repository: official ? OFFICIAL + repository : repository };
}

function checkHost(text: string, host: string): void {
  const match = host.length > MAX_HOST ? null : HOST.exec(host);
  if (match === null) throw malformed(text, `${JSON.stringify(withoutUser(host))} is not a host`);
  const port = match[1];
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535)) {
    throw malformed(text, `${port} is not a port`);
  }
}

function checkRepository(text: string, repository: string): void {
  if (repository.length > MAX_REPOSITORY) {
    const problem = `its repository is ${repository.length} characters long; at most ${MAX_REPOSITORY} are allowed`;
    throw malformed(text, problem);
  }
  for (const component of repository.split('/')) {
    if (COMPONENT.test(component)) continue;
    if (component === '') throw malformed(text, 'a part of its repository is empty');
    if (COMPONENT.test(component.toLowerCase())) {
      const hint = `Repositories are lower-case: try ${repository.toLowerCase().replace(/^library\//, '')}.`;
      throw malformed(text, `its repository has upper-case letters`, hint);
    }
    throw malformed(
      text,
      `${JSON.stringify(component)} cannot be part of a repository`,
      'Its parts are lower-case letters and digits with single dots, one or two underscores, or dashes between.',
    );
  }
}

function malformed(text: string, problem: string, hint?: string): PullError {
  return new PullError('reference-malformed', `${JSON.stringify(text)} is no image reference: ${problem}`, {
    hint,
  });
}

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
const DIGEST_SUFFIX = /@(sha256:[0-9a-f]{64})$/;
/** A name in a layout (OCI image-spec, annotations.md, "org.opencontainers.image.ref.name"). */
const REF_NAME = /^[A-Za-z0-9]+(?:[-._:@/+]+[A-Za-z0-9]+)*$/;

/** A record of the store accepts names of up to 4,096 characters; no path on Linux is longer. */
const MAX_LOCAL_NAME = 4096;

const LOCAL_HINT = 'Write it as oci:DIR:TAG, oci-archive:FILE:TAG, or with @sha256:… in place of the tag.';

/**
 * Parses `oci:DIR[:TAG][@DIGEST]` or `oci-archive:FILE[:TAG][@DIGEST]`; undefined for a text without
 * such a prefix. The first colon behind the prefix ends the path, as in containers-transports(5).
 * `absolute` makes a path absolute.
 * @throws PullError `reference-malformed`
 */
export function parseLocalImage(text: string, absolute: (path: string) => string): LocalImage | undefined {
  const [, transport, name = ''] = TRANSPORT.exec(text) ?? [];
  if (transport !== 'oci' && transport !== 'oci-archive') return undefined;
  const digest = DIGEST_SUFFIX.exec(name)?.[1];
  const location = digest === undefined ? name : name.slice(0, -`@${digest}`.length);
  const [path = '', ...tags] = location.split(':');
  const tag = tags.length === 0 ? undefined : tags.join(':');
  if (path === '') throw malformedLocal(text, 'it names no path');
  if (transport === 'oci' && /^\/\/[^/]/.test(path)) {
    const hint =
      'An image of a registry is named without oci://; for a layout in a directory write oci:DIR:TAG.';
    throw malformedLocal(text, 'it starts with oci://, as Helm names what a registry has', hint);
  }
  if (tag !== undefined && !REF_NAME.test(tag))
    throw malformedLocal(text, `${JSON.stringify(tag)} is not a tag`);
  const image: LocalImage = {
    transport,
    path: absolute(path),
    ...(tag !== undefined && { tag }),
    ...(isDigest(digest) && { digest }),
  };
  if (formatLocalImage(image).length > MAX_LOCAL_NAME) {
    throw malformedLocal(text, `it is longer than ${MAX_LOCAL_NAME} characters`);
  }
  return image;
}

/** Returns the complete name of a local image, which `parseLocalImage` reads. */
export function formatLocalImage({ transport, path, tag, digest }: LocalImage): string {
  return `${transport}:${path}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
}

function malformedLocal(text: string, problem: string, hint = LOCAL_HINT): PullError {
  return malformed(text.length > 200 ? `${text.slice(0, 200)}…` : text, problem, hint);
}

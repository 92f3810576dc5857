import { type Digest, EMPTY_DIGEST, parseDigest } from './digest.js';
import { PullError, quote } from './error.js';
import { type Platform, parsePlatformFields } from './platform.js';
import {
  asFields,
  asString,
  type Fields,
  freeKeys,
  type KnownKeys,
  malformed,
  own,
  parseList,
  parseObject,
  strictParser,
  textOf,
} from './strict-json.js';

/**
 * The distribution-spec requires registries to accept manifests up to 4 MiB and lets them refuse
 * larger ones.
 */
export const MAX_MANIFEST_BYTES = 4 * 2 ** 20;
/** Overlay mounts allow 500 layers and Docker 127. */
export const MAX_LAYERS = 1000;
/**
 * Some dozen platforms, twice for two compressions, with an attestation each: a few hundred at
 * most.
 */
export const MAX_INDEX_ENTRIES = 4096;
/**
 * 512 GiB. Of the large registries that state a limit, Azure's accepts the largest layers: 200 GiB.
 * The sizes of 10,000 blobs, more than any copy has, add up to a safe integer.
 */
export const MAX_BLOB_BYTES = 2 ** 39;
/** Foreign layers have an address or two. */
const MAX_URLS = 32;

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

/**
 * The media types requested from a registry, and all that `parseManifest` reads. Each is sent as an
 * Accept line of its own: some registries do not split a line at its commas.
 */
export const MANIFEST_TYPES: readonly string[] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
const INDEX_TYPES: readonly string[] = [OCI_INDEX, DOCKER_LIST];
const SCHEMA_1 = /^application\/vnd\.docker\.distribution\.manifest\.v1\+/;
/**
 * Requested where a registry has nothing else, so that the error can name schema 1. Never requested
 * first: a registry that converts manifests might prefer it.
 */
export const SCHEMA_1_TYPES = [
  'application/vnd.docker.distribution.manifest.v1+prettyjws',
  'application/vnd.docker.distribution.manifest.v1+json',
] as const;

/** OCI image-spec, descriptor.md. */
export interface Descriptor {
  /** As written; empty if absent. */
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly annotations?: Readonly<Record<string, string>>;
  /** Addresses of a foreign layer besides the registry. */
  readonly urls?: readonly string[];
}

/** A manifest or index listed in an index. */
export interface IndexEntry extends Descriptor {
  /** As written in the index; absent unless it names both a system and an architecture. */
  readonly platform?: Platform;
}

export interface ImageIndex {
  readonly kind: 'index';
  readonly mediaType: string;
  readonly manifests: readonly IndexEntry[];
  /** The error of each entry that cannot be read, and so cannot be chosen. */
  readonly unreadable: readonly PullError[];
}

export interface ImageManifest {
  readonly kind: 'manifest';
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** OCI image-spec, image-index.md; `features` is Docker's. */
export const PLATFORM_KEYS = freeKeys('architecture os os.version os.features variant features');

/** OCI image-spec, descriptor.md. */
const DESCRIPTOR_KEYS: KnownKeys = {
  ...freeKeys('mediaType digest urls annotations data artifactType'),
  size: 'integer',
  platform: PLATFORM_KEYS,
};

/**
 * Keys of manifests and indexes of every kind, schema 1 included. Which ones a document has tells
 * its kind.
 */
const parseManifestJson = strictParser({
  ...freeKeys('mediaType artifactType annotations fsLayers history signatures'),
  schemaVersion: 'integer',
  config: DESCRIPTOR_KEYS,
  layers: DESCRIPTOR_KEYS,
  manifests: DESCRIPTOR_KEYS,
  blobs: DESCRIPTOR_KEYS,
  subject: DESCRIPTOR_KEYS,
});

/**
 * Keys of other kinds of manifest (CVE-2021-41190), not allowed in an index or in an image
 * manifest.
 */
const NOT_OF_INDEX = ['layers', 'config', 'fsLayers', 'blobs'] as const;
const NOT_OF_IMAGE = ['manifests', 'fsLayers', 'blobs'] as const;

/**
 * Parses a manifest from a registry or layout: an OCI index or manifest, or Docker's schema 2 of
 * either.
 * @param mediaTypeHeader Content-Type of the response; the media type in the document takes
 *   precedence
 * @throws PullError `metadata-malformed` naming the field, `unsupported` for schema 1, another
 *   media type or a digest other than sha256
 */
export function parseManifest(bytes: Uint8Array, mediaTypeHeader?: string): ImageIndex | ImageManifest {
  const fields = parseObject(bytes, MAX_MANIFEST_BYTES, 'The manifest', parseManifestJson);
  const mediaType = documentType(fields, mediaTypeHeader);
  if (!MANIFEST_TYPES.includes(mediaType)) {
    throw notAnImage('The manifest', mediaType);
  }
  const isIndex = INDEX_TYPES.includes(mediaType);
  checkKind(fields, mediaType, isIndex);
  if (isIndex) {
    return { kind: 'index', mediaType, ...parseEntries(own(fields, 'manifests')) };
  }
  return {
    kind: 'manifest',
    mediaType,
    config: parseDescriptor(own(fields, 'config'), 'config'),
    layers: parseList(own(fields, 'layers') ?? [], 'layers', MAX_LAYERS).map((layer, i) =>
      parseDescriptor(layer, `layers[${i}]`),
    ),
  };
}

function notAnImage(what: string, mediaType: string): PullError {
  return new PullError('unsupported', `${what} has media type ${quote(mediaType)}, which is no image`, {
    hint: SCHEMA_1.test(mediaTypeOf(mediaType))
      ? 'Push the image again: schema 1 is no longer in use.'
      : 'Artifacts of other kinds can be fetched with `oras pull`.',
  });
}

/** Programs could read a document of two kinds as either, and one of another version in any way. */
function checkKind(fields: Fields, mediaType: string, isIndex: boolean): void {
  const foreign = (isIndex ? NOT_OF_INDEX : NOT_OF_IMAGE).find((key) => own(fields, key) !== undefined);
  if (foreign !== undefined) throw malformed(`The manifest of media type ${mediaType} has ${foreign}`);
  const version = own(fields, 'schemaVersion');
  if (version === undefined || version === null || version === 2) return;
  throw malformed(`The manifest of media type ${mediaType} has a schemaVersion that is not 2`);
}

/**
 * Returns the media type of a manifest: its own, else that of the header if known, else by its
 * fields. Generic types, such as `application/json`, say nothing.
 */
function documentType(fields: Fields, header: string | undefined): string {
  const stated = mediaTypeOf(asString(own(fields, 'mediaType') ?? '', 'mediaType'));
  const fromHeader = header === undefined ? undefined : mediaTypeOf(header);
  if (!isVague(stated)) {
    const known = MANIFEST_TYPES.includes(stated) && fromHeader !== undefined;
    if (known && MANIFEST_TYPES.includes(fromHeader)) {
      if (INDEX_TYPES.includes(stated) !== INDEX_TYPES.includes(fromHeader)) {
        throw malformed(`The manifest says it is ${stated}, but was sent as ${fromHeader}`);
      }
    }
    return stated;
  }
  if (own(fields, 'schemaVersion') === 1 || own(fields, 'fsLayers') !== undefined) return SCHEMA_1_TYPES[1];
  if (fromHeader !== undefined && MANIFEST_TYPES.includes(fromHeader)) return fromHeader;
  if (own(fields, 'manifests') !== undefined) return OCI_INDEX;
  if (own(fields, 'config') !== undefined) return OCI_MANIFEST;
  return fromHeader || stated || 'unknown';
}

/** Parses the entries of an index. One that cannot be read does not affect the others. */
function parseEntries(value: unknown): Pick<ImageIndex, 'manifests' | 'unreadable'> {
  const manifests: IndexEntry[] = [];
  const unreadable: PullError[] = [];
  for (const [i, entry] of parseList(value ?? [], 'manifests', MAX_INDEX_ENTRIES).entries()) {
    try {
      manifests.push(parseIndexEntry(entry, `manifests[${i}]`));
    } catch (error) {
      if (!(error instanceof PullError)) throw error;
      unreadable.push(error);
    }
  }
  return { manifests, unreadable };
}

function parseIndexEntry(value: unknown, what: string): IndexEntry {
  const descriptor = parseDescriptor(value, what);
  const mediaType = mediaTypeOf(descriptor.mediaType);
  if (!MANIFEST_TYPES.includes(mediaType) && !isVague(mediaType)) {
    throw notAnImage(`${what} of the image index`, descriptor.mediaType);
  }
  const stated = own(asFields(value, what), 'platform') ?? {};
  const { os, architecture, variant } = parsePlatformFields(
    asFields(stated, `${what}.platform`),
    `${what}.platform`,
  );
  if (os === '' || architecture === '') return descriptor;
  return { ...descriptor, platform: { os, architecture, ...(variant !== undefined && { variant }) } };
}

function parseDescriptor(value: unknown, what: string): Descriptor {
  const fields = asFields(value, what);
  const digest = parseDigest(own(fields, 'digest'), `${what}.digest`);
  const sizeBytes = parseSize(own(fields, 'size'), `${what}.size`, digest);
  const annotations = own(fields, 'annotations') ?? undefined;
  const urls = own(fields, 'urls') ?? undefined;
  return {
    mediaType: textOf(fields, 'mediaType', what),
    digest,
    sizeBytes,
    ...(annotations === undefined ? {} : { annotations: parseStrings(annotations, `${what}.annotations`) }),
    ...(urls === undefined ? {} : { urls: parseUrls(urls, `${what}.urls`) }),
  };
}

/** An absent size is 0, as Go reads it: see `leavesSizeOut`. */
function parseSize(stated: unknown, what: string, layer: Digest): number {
  const value = stated ?? 0;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw malformed(`${what} is not a size in bytes`);
  }
  if (value > MAX_BLOB_BYTES) {
    throw malformed(`${what} is ${value} bytes; at most ${MAX_BLOB_BYTES} are accepted for a blob`, layer);
  }
  // Converts -0, which is another number to some.
  return value + 0;
}

/**
 * Whether a descriptor states no size: some writers left it out, which Go reads as 0. Only an empty
 * blob has 0 bytes.
 */
export function leavesSizeOut({ digest, sizeBytes }: Pick<Descriptor, 'digest' | 'sizeBytes'>): boolean {
  return sizeBytes === 0 && digest !== EMPTY_DIGEST;
}

/**
 * Returns a map of strings without a prototype: no name in it can be mistaken for an inherited
 * property.
 */
function parseStrings(value: unknown, what: string): Readonly<Record<string, string>> {
  const strings: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [name, text] of Object.entries(asFields(value, what))) {
    strings[name] = asString(text, `${what}[${quote(name)}]`);
  }
  return strings;
}

function parseUrls(value: unknown, what: string): string[] {
  return parseList(value, what, MAX_URLS).map((url, i) => asString(url, `${what}[${i}]`));
}

/**
 * Types that do not say what something is: generic types of some writers, and of proxies and
 * registries that store no types. The contents tell.
 */
const VAGUE_TYPES: ReadonlySet<string> = new Set([
  '',
  'application/json',
  'application/octet-stream',
  'application/x-www-form-urlencoded',
  'binary/octet-stream',
  'text/html',
  'text/plain',
]);

/**
 * Returns a media type for comparison: in lower case and without parameters (RFC 9110, section
 * 8.3.1).
 */
export function mediaTypeOf(text: string): string {
  return (text.split(';', 1)[0] ?? '').trim().toLowerCase();
}

/** Whether a media type from `mediaTypeOf` does not say what something is. */
export function isVague(mediaType: string): boolean {
  return VAGUE_TYPES.has(mediaType);
}

import { type Digest, EMPTY_DIGEST, parseDigest } from './digest.js';
import { PullError } from './error.js';
import type { Platform } from './platform.js';
import { type KnownKeys, type StrictParser, strictParser } from './strict-json.js';
import { shorten } from './text.js';

/** The distribution-spec asks registries to accept manifests up to 4 MiB and lets them refuse larger ones. */
export const MAX_MANIFEST_BYTES = 4 * 2 ** 20;
/** Configs hold a history and labels: kilobytes, as a rule. The same limit serves. */
export const MAX_CONFIG_BYTES = 4 * 2 ** 20;
/** Overlay mounts end at 500 layers and Docker at 127. */
export const MAX_LAYERS = 1000;
/** Some dozen platforms, twice for two compressions, and an attestation each: a few hundred at most. */
export const MAX_INDEX_ENTRIES = 4096;
/**
 * 512 GiB. Of the large registries that state a limit, Azure's takes the largest layers: 200 GiB. The sizes of 10,000 blobs,
 * which is more than any copy has, add up to a safe integer.
 */
export const MAX_BLOB_BYTES = 2 ** 39;
/** Foreign layers have an address or two. */
const MAX_URLS = 32;
/** Operating systems, architectures and variants are words of some letters. */
const MAX_PLATFORM_PART_LENGTH = 128;

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json';

/** What a registry is asked for, and all that `parseManifest` understands. */
const MANIFEST_TYPES: readonly string[] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
const INDEX_TYPES: readonly string[] = [OCI_INDEX, DOCKER_LIST];
const SCHEMA_1 = /^application\/vnd\.docker\.distribution\.manifest\.v1\+/;
const SCHEMA_1_TYPE = 'application/vnd.docker.distribution.manifest.v1+json';

/** OCI image-spec, descriptor.md. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly annotations?: Readonly<Record<string, string>>;
  /** Where a foreign layer is found, besides the registry. */
  readonly urls?: readonly string[];
}

/** A manifest that an index names, with the platform it is for as the index writes it. */
interface IndexEntry extends Descriptor {
  readonly platform?: Platform;
}

export interface ImageIndex {
  readonly kind: 'index';
  readonly mediaType: string;
  readonly manifests: readonly IndexEntry[];
}

export interface ImageManifest {
  readonly kind: 'manifest';
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/** The part of an image config that a pull needs. */
export interface ImageConfig extends Platform {
  /** Of each layer's tar, in order. */
  readonly diffIds: readonly Digest[];
}

type Fields = Readonly<Record<string, unknown>>;

/** OCI image-spec, image-index.md; `features` is Docker's. */
const PLATFORM_KEYS: KnownKeys = {
  architecture: null,
  os: null,
  'os.version': null,
  'os.features': null,
  variant: null,
  features: null,
};

/** OCI image-spec, descriptor.md. */
const DESCRIPTOR_KEYS: KnownKeys = {
  mediaType: null,
  digest: null,
  size: 'integer',
  urls: null,
  annotations: null,
  data: null,
  artifactType: null,
  platform: PLATFORM_KEYS,
};

/** Those of manifests and indices of every kind, schema 1 included: what they are for is told apart by which they have. */
const parseManifestJson = strictParser({
  schemaVersion: 'integer',
  mediaType: null,
  artifactType: null,
  config: DESCRIPTOR_KEYS,
  layers: DESCRIPTOR_KEYS,
  manifests: DESCRIPTOR_KEYS,
  blobs: DESCRIPTOR_KEYS,
  subject: DESCRIPTOR_KEYS,
  annotations: null,
  fsLayers: null,
  history: null,
  signatures: null,
});

/** OCI image-spec, config.md, and what Docker has besides. */
const CONTAINER_KEYS: KnownKeys = {
  User: null,
  ExposedPorts: null,
  Env: null,
  Entrypoint: null,
  Cmd: null,
  Volumes: null,
  WorkingDir: null,
  Labels: null,
  StopSignal: null,
  StopTimeout: null,
  ArgsEscaped: null,
  Healthcheck: {
    Test: null,
    Interval: null,
    Timeout: null,
    StartPeriod: null,
    StartInterval: null,
    Retries: null,
  },
  OnBuild: null,
  Shell: null,
  Image: null,
};

const parseConfigJson = strictParser({
  ...PLATFORM_KEYS,
  created: null,
  author: null,
  config: CONTAINER_KEYS,
  rootfs: { type: null, diff_ids: null },
  history: { created: null, created_by: null, author: null, comment: null, empty_layer: null },
});

/** Keys by which another kind of manifest is known (CVE-2021-41190), of an index and of an image. */
const NOT_OF_INDEX = ['layers', 'config', 'fsLayers', 'blobs'] as const;
const NOT_OF_IMAGE = ['manifests', 'fsLayers', 'blobs'] as const;

/**
 * What a registry or layout answered for a reference: an OCI index or manifest, or Docker's schema 2 of either.
 * @param mediaTypeHeader the answer's Content-Type; what the document says of itself goes first
 * @throws PullError `metadata-malformed` naming the field, `unsupported` for schema 1, another media type or a digest
 * that is no sha256
 */
export function parseManifest(bytes: Uint8Array, mediaTypeHeader?: string): ImageIndex | ImageManifest {
  const fields = parseObject(bytes, MAX_MANIFEST_BYTES, 'The manifest', parseManifestJson);
  const mediaType = documentType(fields, mediaTypeHeader);
  if (!MANIFEST_TYPES.includes(mediaType)) {
    throw new PullError('unsupported', `The manifest has media type ${quote(mediaType)}, which is no image`, {
      hint: SCHEMA_1.test(mediaType)
        ? 'Push the image again: schema 1 is no longer in use.'
        : 'Artifacts of other kinds can be fetched with `oras pull`.',
    });
  }
  const isIndex = INDEX_TYPES.includes(mediaType);
  checkKind(fields, mediaType, isIndex);
  if (isIndex) {
    const entries = parseList(own(fields, 'manifests'), 'manifests', MAX_INDEX_ENTRIES).map((entry, i) =>
      parseIndexEntry(entry, `manifests[${i}]`),
    );
    return { kind: 'index', mediaType, manifests: entries };
  }
  return {
    kind: 'manifest',
    mediaType,
    config: parseDescriptor(own(fields, 'config'), 'config'),
    layers: parseList(own(fields, 'layers'), 'layers', MAX_LAYERS).map((layer, i) =>
      parseDescriptor(layer, `layers[${i}]`),
    ),
  };
}

/** A document of two kinds can be read as either by different programs; one of another version as nobody knows what. */
function checkKind(fields: Fields, mediaType: string, isIndex: boolean): void {
  const foreign = (isIndex ? NOT_OF_INDEX : NOT_OF_IMAGE).find((key) => own(fields, key) !== undefined);
  if (foreign !== undefined) throw malformed(`The manifest of media type ${mediaType} has ${foreign}`);
  const version = own(fields, 'schemaVersion');
  if (version === undefined || version === 2) return;
  throw malformed(`The manifest of media type ${mediaType} has a schemaVersion that is not 2`);
}

/** The media type of a manifest: its own word, else the header's if it is one of ours, else by what fields it has. */
function documentType(fields: Fields, header: string | undefined): string {
  const stated = own(fields, 'mediaType');
  if (stated !== undefined && typeof stated !== 'string') throw malformed('mediaType is not a string');
  const fromHeader = header?.split(';')[0]?.trim().toLowerCase();
  if (stated !== undefined && stated !== '') {
    const known = MANIFEST_TYPES.includes(stated) && fromHeader !== undefined;
    if (known && MANIFEST_TYPES.includes(fromHeader)) {
      if (INDEX_TYPES.includes(stated) !== INDEX_TYPES.includes(fromHeader)) {
        throw malformed(`The manifest says it is ${stated}, but was sent as ${fromHeader}`);
      }
    }
    return stated;
  }
  if (own(fields, 'schemaVersion') === 1 || own(fields, 'fsLayers') !== undefined) return SCHEMA_1_TYPE;
  if (fromHeader !== undefined && MANIFEST_TYPES.includes(fromHeader)) return fromHeader;
  if (own(fields, 'manifests') !== undefined) return OCI_INDEX;
  if (own(fields, 'config') !== undefined && own(fields, 'layers') !== undefined) return OCI_MANIFEST;
  return fromHeader ?? 'unknown';
}

function parseIndexEntry(value: unknown, what: string): IndexEntry {
  const descriptor = parseDescriptor(value, what);
  const platform = own(asFields(value, what), 'platform');
  if (platform === undefined || platform === null) return descriptor;
  const fields = asFields(platform, `${what}.platform`);
  return { ...descriptor, platform: parsePlatformFields(fields, `${what}.platform`) };
}

function parsePlatformFields(fields: Fields, what: string): Platform {
  const part = (name: string, value = own(fields, name)): string => {
    const text = asString(value, `${what}.${name}`);
    if (text.length <= MAX_PLATFORM_PART_LENGTH) return text;
    throw malformed(
      `${what}.${name} has ${text.length} letters; at most ${MAX_PLATFORM_PART_LENGTH} are accepted`,
    );
  };
  const variant = part('variant', own(fields, 'variant') ?? '');
  return {
    os: part('os'),
    architecture: part('architecture'),
    ...(variant === '' ? {} : { variant }),
  };
}

function parseDescriptor(value: unknown, what: string): Descriptor {
  const fields = asFields(value, what);
  const digest = parseDigest(own(fields, 'digest'), `${what}.digest`);
  const sizeBytes = parseSize(own(fields, 'size'), `${what}.size`, digest);
  const annotations = own(fields, 'annotations') ?? undefined;
  const urls = own(fields, 'urls') ?? undefined;
  return {
    mediaType: asString(own(fields, 'mediaType'), `${what}.mediaType`),
    digest,
    sizeBytes,
    ...(annotations === undefined ? {} : { annotations: parseStrings(annotations, `${what}.annotations`) }),
    ...(urls === undefined ? {} : { urls: parseUrls(urls, `${what}.urls`) }),
  };
}

function parseSize(value: unknown, what: string, layer: Digest): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw malformed(`${what} is not a size in bytes`);
  }
  if (value > MAX_BLOB_BYTES) {
    throw malformed(`${what} is ${value} bytes; at most ${MAX_BLOB_BYTES} are accepted for a blob`, layer);
  }
  // Not -0, which is another number to some.
  return value + 0;
}

/** Whether a descriptor states no size: some writers left it out, which Go's reader takes for 0. Only nothing has 0 bytes. */
export function leavesSizeOut({ digest, sizeBytes }: Pick<Descriptor, 'digest' | 'sizeBytes'>): boolean {
  return sizeBytes === 0 && digest !== EMPTY_DIGEST;
}

/** A map of strings without a prototype: no name in it can be mistaken for an object's own. */
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
 * Checks that a manifest is a container image, by its config.
 * @throws PullError `unsupported` naming the config's media type
 */
export function requireImage(manifest: ImageManifest): void {
  const { mediaType } = manifest.config;
  if (mediaType === OCI_CONFIG || mediaType === DOCKER_CONFIG) return;
  throw new PullError(
    'unsupported',
    `This is no container image: its config has media type ${quote(mediaType)}`,
    {
      hint: 'Artifacts of other kinds can be fetched with `oras pull`.',
    },
  );
}

/**
 * Platform and DiffIDs of an image config (OCI image-spec, config.md).
 * @throws PullError `metadata-malformed` naming the field, `unsupported` for DiffIDs that are no sha256
 */
export function parseConfig(bytes: Uint8Array): ImageConfig {
  const fields = parseObject(bytes, MAX_CONFIG_BYTES, 'The image config', parseConfigJson);
  const rootfs = asFields(own(fields, 'rootfs'), 'rootfs');
  const type = own(rootfs, 'type');
  if (type !== 'layers') throw malformed(`rootfs.type of the image config is not "layers"`);
  const diffIds = own(rootfs, 'diff_ids') ?? [];
  return {
    ...parsePlatformFields(fields, 'image config'),
    diffIds: parseList(diffIds, 'rootfs.diff_ids', MAX_LAYERS).map((id, i) =>
      parseDigest(id, `rootfs.diff_ids[${i}]`),
    ),
  };
}

/**
 * Checks that the config names a DiffID for each layer.
 * @throws PullError `metadata-malformed`
 */
export function checkLayerCount(manifest: ImageManifest, config: ImageConfig): void {
  const layers = manifest.layers.length;
  const diffIds = config.diffIds.length;
  if (layers !== diffIds) throw malformed(`The manifest has ${layers} layers, its config ${diffIds} DiffIDs`);
}

function parseObject(bytes: Uint8Array, maxBytes: number, what: string, parse: StrictParser): Fields {
  if (bytes.length > maxBytes) {
    throw malformed(`${what} is ${bytes.length} bytes long; at most ${maxBytes} are accepted`);
  }
  return asFields(parse(bytes, what), what);
}

/** A field of a parsed document, never one that every object inherits. */
function own(fields: Fields, name: string): unknown {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}

function asFields(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw malformed(`${what} is not an object`);
  }
  return value as Fields;
}

function asString(value: unknown, what: string): string {
  if (typeof value !== 'string') throw malformed(`${what} is not a string`);
  return value;
}

function parseList(value: unknown, what: string, max: number): readonly unknown[] {
  if (!Array.isArray(value)) throw malformed(`${what} is not a list`);
  if (value.length > max) throw malformed(`${what} has ${value.length} entries; at most ${max} are accepted`);
  return value;
}

function quote(text: string): string {
  return JSON.stringify(shorten(text, 200));
}

function malformed(problem: string, layer?: Digest): PullError {
  return new PullError('metadata-malformed', problem, layer === undefined ? {} : { layer });
}

import { type Digest, parseDigest } from './digest.js';
import { PullError, quote } from './error.js';
import {
  type Descriptor,
  type ImageManifest,
  isVague,
  MAX_LAYERS,
  mediaTypeOf,
  PLATFORM_KEYS,
} from './manifest.js';
import { type Platform, parsePlatformFields } from './platform.js';
import {
  asFields,
  freeKeys,
  type KnownKeys,
  malformed,
  own,
  parseList,
  parseObject,
  strictParser,
  textOf,
} from './strict-json.js';

/** Configs have a history and labels, usually some kilobytes. The same limit as for manifests. */
export const MAX_CONFIG_BYTES = 4 * 2 ** 20;

/** Media types of image configs. One of them that cannot be read is malformed. */
const CONFIG_TYPES: ReadonlySet<string> = new Set([
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
]);

/** The part of an image config that a pull needs. System and architecture are empty if absent. */
export interface ImageConfig extends Platform {
  /** The DiffID of each layer, in order. */
  readonly diffIds: readonly Digest[];
}

/** OCI image-spec, config.md, and additions of Docker. */
const CONTAINER_KEYS: KnownKeys = {
  ...freeKeys('User ExposedPorts Env Entrypoint Cmd Volumes WorkingDir Labels StopSignal StopTimeout'),
  ...freeKeys('ArgsEscaped OnBuild Shell Image'),
  Healthcheck: freeKeys('Test Interval Timeout StartPeriod StartInterval Retries'),
};

const parseConfigJson = strictParser({
  ...PLATFORM_KEYS,
  ...freeKeys('created author'),
  config: CONTAINER_KEYS,
  rootfs: freeKeys('type diff_ids'),
  history: freeKeys('created created_by author comment empty_layer'),
});

/**
 * Returns platform and DiffIDs of an image config (OCI image-spec, config.md). Fields that are
 * absent or null are empty, as Go reads them.
 * @throws PullError `metadata-malformed` naming the field, `unsupported` for DiffIDs other than
 *   sha256, and for a config with a generic media type that is not of an image
 */
export function parseConfig(bytes: Uint8Array, mediaType: string): ImageConfig {
  if (CONFIG_TYPES.has(mediaTypeOf(mediaType))) return parse(bytes, {});
  try {
    return parse(bytes, undefined);
  } catch (error) {
    throw error instanceof PullError ? notAnImage(mediaType, error) : error;
  }
}

/** `emptyRootfs` is used if there is none. */
function parse(bytes: Uint8Array, emptyRootfs: object | undefined): ImageConfig {
  const fields = parseObject(bytes, MAX_CONFIG_BYTES, 'The image config', parseConfigJson);
  const rootfs = asFields(own(fields, 'rootfs') ?? emptyRootfs, 'rootfs');
  const type = textOf(rootfs, 'type', 'rootfs');
  if (type !== 'layers' && type !== '') throw malformed('rootfs.type of the image config is not "layers"');
  const diffIds = own(rootfs, 'diff_ids') ?? [];
  return {
    ...parsePlatformFields(fields, 'image config'),
    diffIds: parseList(diffIds, 'rootfs.diff_ids', MAX_LAYERS).map((id, i) =>
      parseDigest(id, `rootfs.diff_ids[${i}]`),
    ),
  };
}

/**
 * Checks before a config is fetched that it can be of an image: by its media type, or because that
 * is generic, as some registries and writers left it (Docker accepts the same).
 * @throws PullError `unsupported` for another media type, and for a too long config with a generic
 *   one
 */
export function checkConfigType({ mediaType, sizeBytes }: Descriptor): void {
  const type = mediaTypeOf(mediaType);
  if (CONFIG_TYPES.has(type) || (isVague(type) && sizeBytes <= MAX_CONFIG_BYTES)) return;
  throw notAnImage(mediaType, undefined);
}

/**
 * Checks that the config has a DiffID for each layer.
 * @throws PullError `metadata-malformed`
 */
export function checkLayerCount(manifest: ImageManifest, config: ImageConfig): void {
  const layers = manifest.layers.length;
  const diffIds = config.diffIds.length;
  if (layers !== diffIds) throw malformed(`The manifest has ${layers} layers, its config ${diffIds} DiffIDs`);
}

function notAnImage(mediaType: string, cause: PullError | undefined): PullError {
  const reason = cause === undefined ? '' : ` (${cause.message})`;
  return new PullError(
    'unsupported',
    `This is no container image: its config has media type ${quote(mediaType)}${reason}`,
    { hint: 'Artifacts of other kinds can be fetched with `oras pull`.', cause },
  );
}

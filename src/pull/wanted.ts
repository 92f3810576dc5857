import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { type LayerKind, layerKind } from '../format/layer-format.js';
import type { Descriptor } from '../format/manifest.js';
import type { RegistrySession } from '../registry/session.js';
import { readLayerRecord } from '../store/layer-record.js';
import type { StorePaths } from '../store/paths.js';
import { foreignUrlsOf, hostsOf } from './foreign.js';
import type { WantedLayer } from './layer.js';
import type { ResolvedImage } from './resolve.js';

/** One layer of the image: in the store already, or wanted. */
export interface ImageLayer {
  readonly descriptor: Descriptor;
  readonly diffId: Digest;
  readonly kind: LayerKind;
  /** Length of its tar, when the store has it. */
  readonly cachedTarBytes: number | undefined;
}

/** The layers of an image, and which of them the store has. @throws PullError `unsupported` for what is no layer */
export function imageLayers(image: ResolvedImage, paths: StorePaths): ImageLayer[] {
  return image.manifest.layers.map((descriptor, i) => {
    const diffId = image.config.diffIds[i]!;
    const cachedTarBytes = readLayerRecord(paths, diffId)?.extents.lengthBytes;
    return { descriptor, diffId, kind: layerKind(descriptor), cachedTarBytes };
  });
}

/** What decides how a wanted layer is asked for. */
interface WantOptions {
  readonly session: Pick<RegistrySession, 'blobUrl'>;
  readonly allowForeign: boolean;
  /** Told of annotations that do not count. */
  readonly warn: (message: string) => void;
}

/**
 * What is to be pulled: each DiffID once, however often the image has it.
 * @throws PullError `unsupported` for a foreign layer that is not to be fetched from where it lies
 */
export function wantedLayers(layers: readonly ImageLayer[], options: WantOptions): WantedLayer[] {
  const wanted = new Map<Digest, WantedLayer>();
  for (const layer of layers) {
    if (layer.cachedTarBytes !== undefined || wanted.has(layer.diffId)) continue;
    wanted.set(layer.diffId, wantedLayer(layer, options));
  }
  return [...wanted.values()];
}

function wantedLayer({ descriptor, diffId, kind }: ImageLayer, options: WantOptions): WantedLayer {
  const { digest, sizeBytes, mediaType } = descriptor;
  const { format, compression, place, problem } = kind;
  if (problem !== undefined) {
    options.warn(`layer ${digest}: ${problem}; it is pulled as a whole`);
  }
  const [foreignUrl, ...otherUrls] = kind.foreign ? foreignUrls(descriptor, options) : [];
  const blob =
    foreignUrl === undefined
      ? { url: options.session.blobUrl(digest), digest, sizeBytes }
      : { url: foreignUrl, digest, sizeBytes, anonymous: true as const };
  return {
    blob,
    diffId,
    format,
    mediaType,
    compression,
    otherUrls,
    ...(place === undefined ? {} : { place }),
  };
}

/** Where a foreign layer lies; nowhere but in the registry when its descriptor says nothing. */
function foreignUrls(layer: Descriptor, { allowForeign }: WantOptions): string[] {
  const { digest, urls = [] } = layer;
  if (urls.length === 0) return [];
  if (allowForeign) return foreignUrlsOf(layer);
  throw new PullError('unsupported', `layer ${digest} is not in the registry but at ${hostsOf(layer)}`, {
    layer: digest,
    hint: 'if you trust that place, pull with --allow-foreign: no credentials are sent there, and the digest is checked',
  });
}

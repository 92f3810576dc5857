import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { type LayerFormat, layerKind } from '../format/layer-format.js';
import type { Descriptor } from '../format/manifest.js';
import type { RegistrySession } from '../registry/session.js';
import { readLayerRecord } from '../store/layer-record.js';
import type { StorePaths } from '../store/paths.js';
import type { WantedLayer } from './layer.js';
import type { ResolvedImage } from './resolve.js';

/** One layer of the image: in the store already, or wanted. */
export interface ImageLayer {
  readonly descriptor: Descriptor;
  readonly diffId: Digest;
  readonly format: LayerFormat;
  /** Length of its tar, when the store has it. */
  readonly heldTarBytes: number | undefined;
}

/** The layers of an image, and which of them the store has. */
export function imageLayers(image: ResolvedImage, paths: StorePaths): ImageLayer[] {
  return image.manifest.layers.map((descriptor, i) => {
    const diffId = image.config.diffIds[i]!;
    const { format } = layerKind(descriptor);
    return { descriptor, diffId, format, heldTarBytes: readLayerRecord(paths, diffId)?.extents.lengthBytes };
  });
}

/**
 * What is to be pulled: each DiffID once, however often the image has it.
 * @throws PullError `unsupported` for a layer that is not zstd:chunked with tar-split
 */
export function wantedLayers(layers: readonly ImageLayer[], session: RegistrySession): WantedLayer[] {
  const wanted = new Map<Digest, WantedLayer>();
  for (const { descriptor, diffId, heldTarBytes } of layers) {
    if (heldTarBytes !== undefined || wanted.has(diffId)) continue;
    wanted.set(diffId, wantedLayer(descriptor, diffId, session));
  }
  return [...wanted.values()];
}

function wantedLayer(descriptor: Descriptor, diffId: Digest, session: RegistrySession): WantedLayer {
  const { format, positions } = layerKind(descriptor);
  const { digest, sizeBytes } = descriptor;
  const tarSplit = positions?.tarSplit;
  if (positions === undefined || tarSplit === undefined) {
    throw new PullError('unsupported', `layer ${digest} is ${format}, not zstd:chunked with tar-split`, {
      layer: digest,
      hint: 'push it with "skopeo copy --dest-compress-format zstd:chunked" (or "podman push --compression-format zstd:chunked")',
    });
  }
  return {
    blob: { url: session.blobUrl(digest), digest, sizeBytes },
    diffId,
    positions: { ...positions, tarSplit },
  };
}

import { setTimeout as sleep } from 'node:timers/promises';
import type { Digest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { type LayerKind, layerKind } from '../format/layer-format.js';
import type { Descriptor } from '../format/manifest.js';
import type { RegistrySession } from '../registry/session.js';
import type { LayerLocks } from '../store/layer-locks.js';
import { readLayerRecord } from '../store/layer-record.js';
import type { StorePaths } from '../store/paths.js';
import { foreignUrlsOf, hostsOf } from './blob-locations.js';
import type { LayerFigures, WantedLayer } from './layer.js';
import type { PulledLayers } from './pull-layers.js';
import type { ResolvedImage } from './resolve-image.js';
import type { Stop } from './stop.js';

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

/** A layer that is gone again after so many pulls of it is taken from us by something that will not stop. */
const MOST_PULLS = 2;

/** How often a waiting pull or copy looks: some small files are read each time. */
export const LOOK_MS = 200;

interface MissingLayers {
  readonly locks: LayerLocks;
  readonly stop: Stop;
  /** The layers that the store does not have now. */
  readonly missing: () => Promise<readonly WantedLayer[]>;
  readonly pull: (layers: readonly WantedLayer[]) => Promise<PulledLayers>;
  /** Called when nothing but layers of other processes is left. */
  readonly onWait: (layers: number) => void;
}

/** What the layers that were pulled here cost, by DiffID. */
interface PulledHere {
  readonly figures: Map<Digest, LayerFigures>;
  readonly provenAfterMs: number;
}

/**
 * Pulls the layers that the store does not have. Those that another process is pulling come last: they are there by then, or
 * are left to us. A layer that goes while others are pulled (by a prune that had begun before) is pulled again, once.
 * @throws PullError the reason of a stop, else what `pull` throws and as `storageError`
 */
export async function pullMissing({
  locks,
  stop,
  missing,
  pull,
  onWait,
}: MissingLayers): Promise<PulledHere> {
  const figures = new Map<Digest, LayerFigures>();
  const pulls = new Map<Digest, number>();
  let provenAfterMs = 0;
  for (;;) {
    const wanted = (await missing()).filter(({ diffId }) => (pulls.get(diffId) ?? 0) < MOST_PULLS);
    if (wanted.length === 0) return { figures, provenAfterMs };
    const free = new Set(wanted.map(({ diffId }) => diffId).filter((diffId) => locks.tryLock(diffId)));
    // Whoever had a lock may have published the layer since we looked.
    const own = free.size === 0 ? [] : (await missing()).filter(({ diffId }) => free.has(diffId));
    if (own.length > 0) {
      const pulled = await pull(own);
      for (const [i, { diffId }] of own.entries()) {
        figures.set(diffId, pulled.figures[i]!);
        pulls.set(diffId, (pulls.get(diffId) ?? 0) + 1);
      }
      provenAfterMs += pulled.provenAfterMs;
    }
    locks.releaseAll();
    if (free.size > 0) continue;
    onWait(wanted.length);
    // Nobody asks a server meanwhile: karma's clock stands still.
    while (wanted.every(({ diffId }) => locks.isLocked(diffId))) await stop.guard(sleep(LOOK_MS));
  }
}

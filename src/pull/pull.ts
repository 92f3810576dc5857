import { withRoomFrom } from '../files/disk-space.js';
import { asOutOfResources } from '../files/storage-error.js';
import { type Digest, parseDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import { normalisePlatform } from '../format/platform.js';
import type { LayerFollower } from '../pool/layer-follower.js';
import { LayerLocks } from '../store/layer-locks.js';
import { Lease } from '../store/leases.js';
import { openStore, openStoreToRead, type StorePaths } from '../store/paths.js';
import { removeUnreferenced, removeUnusable } from '../store/sweep.js';
import { type ImageInspection, inspectionOf, type PreparedLayers } from './inspection.js';
import { type LayerFigures, mayFallBack, sumOfFetches, type WantedLayer } from './layer.js';
import { type ImageLayer, imageLayers, pullMissing, wantedLayers } from './missing-layers.js';
import type { PullEvent } from './pull-events.js';
import type { PulledLayers } from './pull-layers.js';
import type { PullOptions } from './pull-options.js';
import { layerResults, type PathResult, type PathSelection, type PullResult, sumOf } from './pull-result.js';
import { RegistryLink } from './pull-session.js';
import { noteUse, type ResolvedImage, recordedImage, resolveImage, writeRecord } from './resolve-image.js';
import type { Workers } from './workers.js';

/**
 * Pulls an image into the store, verified to its DiffIDs.
 * @throws PullError; what was received by then stays in the store, and the next pull goes on from there
 */
export function pullImage(reference: string, options: PullOptions): Promise<PullResult> {
  return within(reference, options, openStore, (pull) => pull.run());
}

/**
 * Pulls what an export of one file or directory needs. Of layers whose format allows it only the contents that are wanted are fetched, and proven by
 * the digests of a table of contents whose own digest the manifest states: the result is a layer that has nothing else. Else, and where that fails, the
 * image is pulled as `pullImage` does.
 * @throws PullError as `pullImage`; `path-not-found`, unless the whole image was pulled, of which an export finds it out
 */
export function pullPath(
  reference: string,
  selection: PathSelection,
  options: PullOptions,
): Promise<PathResult> {
  return within(reference, options, openStore, (pull) => pull.runPath(selection));
}

/**
 * What a reference names and what pulling it would fetch and reuse; fetches manifests, config and tables of contents, and no
 * content. Nothing is written to the store, which need not be there. @throws PullError as `pullImage`
 */
export function inspectImage(reference: string, options: PullOptions): Promise<ImageInspection> {
  return within(reference, options, openStoreToRead, (pull) => pull.inspect());
}

/** What `use` resolves to; nothing of the pull lives any more then. */
async function within<T>(
  reference: string,
  options: PullOptions,
  open: typeof openStore,
  use: (pull: Pull) => Promise<T>,
): Promise<T> {
  const link = await RegistryLink.open(reference, options, 'the pull was interrupted');
  let pull: Pull | undefined;
  try {
    pull = new Pull(link, open, options.follower);
    const result = await link.stop.guard(use(pull));
    link.end();
    return result;
  } catch (error) {
    throw asOutOfResources(error);
  } finally {
    link.close();
    await pull?.close();
  }
}

/** One pull from the reference to the image record. */
class Pull {
  readonly #link: RegistryLink;
  readonly #paths: StorePaths;
  readonly #follower: LayerFollower | undefined;
  readonly #warned = new Set<string>();
  /** What layers cost that were pulled whole for a path. */
  readonly #pulled = new Map<Digest, LayerFigures>();
  readonly #startedMs = performance.now();
  readonly #startedBusy = performance.eventLoopUtilization();
  #lease: Lease | undefined;
  #locks: LayerLocks | undefined;
  #workers: Promise<Workers> | undefined;

  constructor(link: RegistryLink, open: typeof openStore, follower: LayerFollower | undefined) {
    this.#link = link;
    this.#follower = follower;
    this.#paths = open(link.settings.store, this.#warnOnce);
  }

  async run(): Promise<PullResult> {
    return (await this.#recorded()) ?? this.#pullImage(await this.#resolveToPull());
  }

  async runPath(selection: PathSelection): Promise<PathResult> {
    const whole = (result: PullResult): PathResult => ({
      ...result,
      diffIds: result.layers.map(({ diffId }) => diffId),
      isPicked: false,
    });
    const recorded = await this.#recorded();
    if (recorded !== undefined) return whole(recorded);
    const image = await this.#resolveToPull();
    return (await this.#pick(image, selection)) ?? whole(await this.#pullImage(image));
  }

  /** The image as the store has it, where the policy allows that. */
  async #recorded(): Promise<PullResult | undefined> {
    const recorded = recordedImage(this.#paths, this.#link.image, this.#link.settings);
    if (recorded === undefined) return undefined;
    await noteUse(this.#paths, recorded.record);
    return this.#result(recorded.image, recorded.layers, new Map(), 0);
  }

  #resolveToPull(): Promise<ResolvedImage> {
    this.#lease = new Lease(this.#paths, 'pull');
    this.#locks = new LayerLocks(this.#paths, this.#lease);
    return this.#resolve();
  }

  /** The file or directory at a path, in a layer of its own; undefined where whole layers have to be pulled. */
  async #pick(image: ResolvedImage, selection: PathSelection): Promise<PathResult | undefined> {
    const missing = async () => this.#wanted(imageLayers(image, this.#paths));
    const [wanted, { pickPath }] = await Promise.all([missing(), import('./pull-path.js')]);
    if (wanted.length === 0) return undefined;
    await this.#remove((lease) => removeUnusable(this.#paths, lease));
    const workers = await this.#startWorkers(wanted);
    const pullWhole = async (diffIds: ReadonlySet<Digest>) => {
      const layers = async () => (await missing()).filter(({ diffId }) => diffIds.has(diffId));
      const { figures } = await this.#pullMissing(layers);
      for (const [diffId, figure] of figures) this.#pulled.set(diffId, figure);
      return sumOfFetches([...figures.values()]);
    };
    const layers = { order: image.config.diffIds, missing, pullWhole };
    try {
      const picked = await pickPath(workers.context, layers, selection);
      if (picked === undefined) return undefined;
      await workers.seal();
      const { diffId, fetchedBytes, requests } = picked;
      const result = this.#result(image, [], new Map(), 0);
      return { ...result, fetchedBytes, requests, diffIds: [diffId], isPicked: true };
    } catch (error) {
      if (!mayFallBack(error)) throw error;
      this.#warnOnce(`${error.message}; the image is pulled whole`);
      return undefined;
    } finally {
      await workers.close();
    }
  }

  #pullMissing(missing: () => Promise<WantedLayer[]>): ReturnType<typeof pullMissing> {
    return pullMissing({
      locks: this.#locks!,
      stop: this.#link.stop,
      missing,
      pull: (layers) => this.#pullLayers(layers),
      onWait: (layers) => this.#link.progress.emit({ event: 'waiting-for-layers', layers }),
    });
  }

  async #pullImage(image: ResolvedImage): Promise<PullResult> {
    this.#follower?.begin(image.config.diffIds);
    const missing = () => this.#wanted(imageLayers(image, this.#paths));
    const { figures, provenAfterMs } = await this.#pullMissing(missing);
    await withRoomFrom(this.#follower, () =>
      writeRecord(this.#paths, this.#link.image, this.#link.settings, image),
    );
    const all = new Map([...this.#pulled, ...figures]);
    return this.#result(image, imageLayers(image, this.#paths), all, provenAfterMs);
  }

  /** A layer that is in the store is nobody's to pull any more. */
  readonly #emit = (event: PullEvent): void => {
    if (event.event === 'layer') this.#locks?.release(parseDigest(event.diffId, 'DiffID'));
    this.#link.progress.emit(event);
  };

  /** The same up to the first content byte. */
  async inspect(): Promise<ImageInspection> {
    const recorded = recordedImage(this.#paths, this.#link.image, this.#link.settings);
    const image = recorded?.image ?? (await this.#resolve());
    const layers = recorded?.layers ?? imageLayers(image, this.#paths);
    const wanted = await this.#wanted(layers);
    const prepared = wanted.length === 0 ? { layers: [], figures: [] } : await this.#prepare(wanted);
    return inspectionOf(this.#link.image, this.#paths, image, layers, prepared);
  }

  /** The image itself may have come from the store: then the registry hears of the pull here at first. */
  async #wanted(layers: readonly ImageLayer[]): Promise<WantedLayer[]> {
    const isCached = ({ cachedTarBytes }: ImageLayer) => cachedTarBytes !== undefined;
    if (!layers.every(isCached)) await this.#link.asking(() => this.#link.session.open());
    return wantedLayers(layers, {
      session: this.#link.session,
      allowForeign: this.#link.settings.allowForeign,
      warn: this.#warnOnce,
    });
  }

  /** Which layers are wanted is asked again when others have come. */
  readonly #warnOnce = (message: string): void => {
    if (this.#warned.has(message)) return;
    this.#warned.add(message);
    this.#link.progress.emit({ event: 'warning', message });
  };

  async #prepare(wanted: readonly WantedLayer[]): Promise<PreparedLayers> {
    const [workers, { prepareLayers }] = await Promise.all([
      this.#startWorkers(wanted),
      import('./pull-layers.js'),
    ]);
    return prepareLayers(workers.context, wanted);
  }

  async #pullLayers(wanted: readonly WantedLayer[]): Promise<PulledLayers> {
    if (this.#workers === undefined) await this.#remove((lease) => removeUnusable(this.#paths, lease));
    const [workers, { pullLayers }] = await Promise.all([
      this.#startWorkers(wanted),
      import('./pull-layers.js'),
    ]);
    const pulled = await pullLayers(workers.context, wanted);
    await workers.seal();
    return pulled;
  }

  /** Known from the first moment on: `close` ends them, whatever fails meanwhile. */
  #startWorkers(wanted: readonly WantedLayer[]): Promise<Workers> {
    this.#workers = this.#loadWorkers(wanted);
    return this.#workers;
  }

  /** Piscina and what runs on it are loaded only when there is a layer to pull. */
  async #loadWorkers(wanted: readonly WantedLayer[]): Promise<Workers> {
    const [{ Workers: Threads }, { likelyStreamBytes }] = await Promise.all([
      import('./workers.js'),
      import('./thread-counts.js'),
    ]);
    const [link, paths, follower] = [this.#link, this.#paths, this.#follower];
    const demand = { layers: wanted.length, streamBytes: likelyStreamBytes(wanted) };
    return Threads.start({ link, paths, ...demand, emit: this.#emit, follower });
  }

  /** Ends whatever is still running. */
  async close(): Promise<void> {
    const workers = await this.#workers?.catch(() => undefined); // whoever awaits the start hears of it
    await workers?.close();
    if (workers !== undefined) {
      const { failed } = workers.context;
      await this.#remove((lease) => removeUnreferenced(this.#paths, lease, failed));
    }
    this.#locks?.releaseAll();
    this.#lease?.close();
  }

  /** Deletes what is of no use: what processes that are gone have left, and what a layer that is no good has written. */
  async #remove(remove: (lease: Lease) => Promise<void>): Promise<void> {
    if (this.#lease === undefined) return;
    try {
      await remove(this.#lease);
    } catch (error) {
      // What cannot be deleted is left to prune; other errors of the disk end the pull by themselves.
      if (!(error instanceof PullError)) throw error;
    }
  }

  async #resolve(): Promise<ResolvedImage> {
    const image = await this.#link.resolve((session) =>
      resolveImage(session, this.#link, this.#paths, this.#warnOnce),
    );
    this.#warnOfPlatform(image);
    this.#link.progress.emit({
      event: 'resolved',
      image: this.#link.image,
      digest: image.manifestDigest,
      ...(image.indexDigest && { indexDigest: image.indexDigest }),
      platform: image.platform,
      layers: image.manifest.layers.length,
      totalBytes: image.manifest.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0),
    });
    return image;
  }

  /** A manifest without an index is taken whatever it is for, as other tools do; but not silently. */
  #warnOfPlatform({ config, platform }: ResolvedImage): void {
    const wanted = normalisePlatform(this.#link.settings.platform);
    const actual = normalisePlatform(config);
    if (actual.os === wanted.os && actual.architecture === wanted.architecture) return;
    const message = `the image is for ${platform}, not for ${this.#link.settings.platformName}`;
    this.#link.progress.emit({ event: 'warning', message });
  }

  #result(
    image: Pick<ResolvedImage, 'manifestDigest' | 'indexDigest' | 'platform'>,
    layers: readonly ImageLayer[],
    figures: ReadonlyMap<string, LayerFigures>,
    provenAfterMs: number,
  ): PullResult {
    const results = layerResults(layers, figures);
    return {
      image: this.#link.image,
      digest: image.manifestDigest,
      ...(image.indexDigest && { indexDigest: image.indexDigest }),
      platform: image.platform,
      store: this.#paths.root,
      layers: results,
      ...sumOf(results),
      misses: this.#link.patience.misses,
      durationMs: Math.round(performance.now() - this.#startedMs),
      verified: true,
      measured: {
        provenAfterMs,
        mainThreadBusy: performance.eventLoopUtilization(this.#startedBusy).utilization,
      },
    };
  }
}

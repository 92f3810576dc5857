import { retryIfFullAsync } from '../files/disk-space.js';
import { type Digest, parseDigest } from '../format/digest.js';
import { PullError } from '../format/error.js';
import type { LayerFollower } from '../pool/messages.js';
import { LayerLocks } from '../store/layer-locks.js';
import { Lease } from '../store/leases.js';
import { openStore, openStoreToRead, type StorePaths } from '../store/paths.js';
import { removeUnreferenced, removeUnusable } from '../store/sweep.js';
import {
  type ImageLayer,
  imageLayers,
  likelyStreamBytes,
  type MissingLayer,
  mayFallBack,
  missingLayers,
  pullMissing,
  sumOfFetches,
} from './layer.js';
import type { ListedLayer } from './layer-progress.js';
import type { PullEvent } from './pull-events.js';
import type { RunOptions } from './pull-options.js';
import {
  type ImageInspection,
  inspectionOf,
  type LayerFigures,
  layerTotals,
  type PathResult,
  type PathSelection,
  type PreparedLayers,
  type PullResult,
} from './pull-result.js';
import type { PullSession } from './pull-session.js';
import { noteUse, type ResolvedImage, recordedImage, resolveSession, writeRecord } from './resolve-image.js';
import { withSession } from './with-session.js';
import type { Workers } from './workers.js';

/**
 * Pulls an image into the store, each layer verified by its DiffID.
 * @throws PullError; what was received before stays in the store, and the next pull resumes there
 */
export function pullImage(reference: string, options: RunOptions): Promise<PullResult> {
  return withPull(reference, options, openStore, (pull) => pull.run());
}

/**
 * Pulls what an export of one file or directory needs. From layers whose format allows it, only the
 * selected contents are fetched and verified by the digests of a table of contents whose own digest
 * the manifest states; the result is one layer with nothing else. Otherwise, and where that fails,
 * pulls the full image as `pullImage` does.
 * @throws PullError as `pullImage`; `path-not-found`, unless the full image was pulled, where an
 *   export finds that out
 */
export function pullPath(
  reference: string,
  selection: PathSelection,
  options: RunOptions,
): Promise<PathResult> {
  return withPull(reference, options, openStore, (pull) => pull.runPath(selection));
}

/**
 * What a reference names, and what pulling it would fetch and reuse. Fetches manifests, config and
 * tables of contents, and no content. Writes nothing to the store, which need not exist.
 * @throws PullError as `pullImage`
 */
export function inspectImage(reference: string, options: RunOptions): Promise<ImageInspection> {
  return withPull(reference, options, openStoreToRead, (pull) => pull.inspect());
}

/** Runs `action` with a pull, all of whose threads, timers and locks are gone afterwards. */
function withPull<T>(
  reference: string,
  options: RunOptions,
  open: typeof openStore,
  action: (pull: Pull) => Promise<T>,
): Promise<T> {
  return withSession(reference, options, 'the pull was interrupted', (session) => {
    const pull = new Pull(session, open, options.follower);
    return { run: () => action(pull), close: () => pull.close() };
  });
}

/** One pull, from the reference to the image record. */
class Pull {
  readonly #session: PullSession;
  readonly #paths: StorePaths;
  readonly #follower: LayerFollower | undefined;
  readonly #warned = new Set<string>();
  /** Figures of layers that were pulled in full for a path. */
  readonly #pulled = new Map<Digest, LayerFigures>();
  readonly #startedMs = performance.now();
  #lease: Lease | undefined;
  #locks: LayerLocks | undefined;
  #workers: Promise<Workers> | undefined;

  constructor(session: PullSession, open: typeof openStore, follower: LayerFollower | undefined) {
    this.#session = session;
    this.#follower = follower;
    this.#paths = open(session.settings.store, this.#warnOnce);
  }

  async run(): Promise<PullResult> {
    const recorded = await this.#useRecorded();
    if (recorded !== undefined) return recorded;
    const image = await this.#resolveToPull();
    const layers = imageLayers(image, this.#paths);
    if (layers.some(({ cachedTarBytes }) => cachedTarBytes === undefined))
      await this.#session.takeTurn('pull');
    return this.#pullImage(image);
  }

  async runPath(selection: PathSelection): Promise<PathResult> {
    const inFull = (result: PullResult): PathResult => ({
      ...result,
      diffIds: result.layers.map(({ diffId }) => diffId),
      isPicked: false,
    });
    const recorded = await this.#useRecorded();
    if (recorded !== undefined) return inFull(recorded);
    const image = await this.#resolveToPull();
    await this.#session.takeTurn('pull');
    return (await this.#pick(image, selection)) ?? inFull(await this.#pullImage(image));
  }

  /** Runs a pull up to the first content byte. */
  async inspect(): Promise<ImageInspection> {
    const { source, settings } = this.#session;
    const recorded = recordedImage(this.#paths, source.image, settings);
    const image = recorded?.image ?? (await this.#resolve());
    const layers = recorded?.layers ?? imageLayers(image, this.#paths);
    if (layers.some(({ cachedTarBytes }) => cachedTarBytes === undefined))
      await this.#session.takeTurn('inspect');
    const prepared = await this.#prepare(await this.#missing(layers));
    const inspection = inspectionOf(source.image, this.#paths, image, layers, prepared);
    return { ...inspection, stages: this.#session.stages.result() };
  }

  /** The image from the store, where the policy allows that. */
  async #useRecorded(): Promise<PullResult | undefined> {
    const recorded = recordedImage(this.#paths, this.#session.source.image, this.#session.settings);
    if (recorded === undefined) return undefined;
    await noteUse(this.#paths, recorded.record);
    return this.#result(recorded.image, recorded.layers, new Map());
  }

  #resolveToPull(): Promise<ResolvedImage> {
    this.#lease = new Lease(this.#paths, 'pull');
    this.#locks = new LayerLocks(this.#paths, this.#lease);
    return this.#resolve();
  }

  #resolve(): Promise<ResolvedImage> {
    return resolveSession(this.#session, this.#paths, this.#warnOnce);
  }

  async #pullImage(image: ResolvedImage): Promise<PullResult> {
    const { source, settings } = this.#session;
    this.#follower?.begin(image.config.diffIds);
    this.#session.progress.layers.list(imageLayers(image, this.#paths).map(listed));
    const missing = () => this.#missing(imageLayers(image, this.#paths));
    const figures = await this.#pullMissing(missing);
    const sync = (write: () => Promise<void>) => this.#session.stages.clock.during('sync', 'wait', write);
    await retryIfFullAsync(this.#follower, () =>
      writeRecord(this.#paths, source.image, settings, image, sync),
    );
    const all = new Map([...this.#pulled, ...figures]);
    return this.#result(image, imageLayers(image, this.#paths), all);
  }

  /** Pulls a path as a layer of its own; undefined where full layers have to be pulled. */
  async #pick(image: ResolvedImage, selection: PathSelection): Promise<PathResult | undefined> {
    const missing = async () => this.#missing(imageLayers(image, this.#paths));
    const [all, { pickPath }] = await Promise.all([missing(), import('./pull-path.js')]);
    if (all.length === 0) return undefined;
    await this.#remove((lease) => removeUnusable(this.#paths, lease));
    const workers = await this.#startWorkers(all);
    const pullInFull = async (diffIds: ReadonlySet<Digest>) => {
      const layers = async () => (await missing()).filter(({ diffId }) => diffIds.has(diffId));
      const figures = await this.#pullMissing(layers);
      for (const [diffId, figure] of figures) this.#pulled.set(diffId, figure);
      return sumOfFetches([...figures.values()]);
    };
    const layers = { order: image.config.diffIds, missing, pullInFull };
    try {
      const picked = await pickPath(workers.context, layers, selection);
      if (picked === undefined) return undefined;
      await workers.seal();
      const { diffId, fetchedBytes, requests } = picked;
      const result = this.#result(image, [], new Map());
      return { ...result, fetchedBytes, requests, diffIds: [diffId], isPicked: true };
    } catch (error) {
      if (!mayFallBack(error)) throw error;
      this.#warnOnce(`${error.message}; pulling the full image instead`);
      return undefined;
    } finally {
      await workers.close();
    }
  }

  /** Layers to pull. Opens the registry, which an image from the store has not needed before. */
  async #missing(layers: readonly ImageLayer[]): Promise<MissingLayer[]> {
    const { registry, settings } = this.#session;
    const isCached = ({ cachedTarBytes }: ImageLayer) => cachedTarBytes !== undefined;
    if (!layers.every(isCached)) await this.#session.request(() => registry.open());
    return missingLayers(layers, { registry, allowForeign: settings.allowForeign, warn: this.#warnOnce });
  }

  #pullMissing(missing: () => Promise<MissingLayer[]>): ReturnType<typeof pullMissing> {
    return pullMissing({
      locks: this.#locks!,
      stop: this.#session.stop,
      missing,
      pull: (layers) => this.#pullLayers(layers),
      onTurn: (theirs, ours) => this.#session.progress.layers.share(theirs, ours),
      onWait: (layers) => this.#session.progress.emit({ event: 'waiting-for-layers', layers }),
    });
  }

  async #pullLayers(missing: readonly MissingLayer[]): Promise<readonly LayerFigures[]> {
    if (this.#workers === undefined) await this.#remove((lease) => removeUnusable(this.#paths, lease));
    const [workers, { pullLayers }] = await Promise.all([
      this.#startWorkers(missing),
      import('./pull-layers.js'),
    ]);
    const pulled = await pullLayers(workers.context, missing);
    await workers.seal();
    return pulled;
  }

  async #prepare(missing: readonly MissingLayer[]): Promise<PreparedLayers> {
    if (missing.length === 0) return { layers: [], figures: [] };
    const [workers, { prepareLayers }] = await Promise.all([
      this.#startWorkers(missing),
      import('./prepare-layers.js'),
    ]);
    return prepareLayers(workers.context, missing);
  }

  /**
   * Loads piscina and all that runs on it only when there is a layer to pull. Stores the promise at
   * once, so that `close` ends the threads whatever fails meanwhile.
   */
  #startWorkers(missing: readonly MissingLayer[]): Promise<Workers> {
    const [session, paths, follower] = [this.#session, this.#paths, this.#follower];
    const demand = { layers: missing.length, streamBytes: likelyStreamBytes(missing) };
    this.#workers = import('./workers.js').then(({ Workers: Threads }) =>
      Threads.start({ session, paths, ...demand, emit: this.#emit, follower }),
    );
    return this.#workers;
  }

  /** Gives up the lock of a layer as soon as it is in the store. */
  readonly #emit = (event: PullEvent): void => {
    if (event.event === 'layer') this.#locks?.release(parseDigest(event.diffId, 'DiffID'));
    this.#session.progress.emit(event);
  };

  /** The missing layers are listed several times, with the same warnings. */
  readonly #warnOnce = (message: string): void => {
    if (this.#warned.has(message)) return;
    this.#warned.add(message);
    this.#session.progress.emit({ event: 'warning', message });
  };

  #result(
    image: Pick<ResolvedImage, 'manifestDigest' | 'indexDigest' | 'platform'>,
    layers: readonly ImageLayer[],
    figures: ReadonlyMap<string, LayerFigures>,
  ): PullResult {
    const { manifestDigest: digest, indexDigest, platform } = image;
    return {
      image: this.#session.source.image,
      digest,
      ...(indexDigest && { indexDigest }),
      platform,
      store: this.#paths.root,
      ...layerTotals(layers, figures),
      misses: this.#session.retries.misses,
      durationMs: Math.round(performance.now() - this.#startedMs),
      stages: this.#session.stages.result(),
      verified: true,
    };
  }

  /** Ends everything that still runs. */
  async close(): Promise<void> {
    const workers = await this.#workers?.catch(() => undefined); // its starter throws this error
    await workers?.close();
    if (workers !== undefined) {
      const { failed } = workers.context;
      await this.#remove((lease) => removeUnreferenced(this.#paths, lease, failed));
    }
    this.#locks?.releaseAll();
    this.#lease?.close();
  }

  /** Deletes what dead processes and failed layers have left in the store. */
  async #remove(remove: (lease: Lease) => Promise<void>): Promise<void> {
    if (this.#lease === undefined) return;
    try {
      await remove(this.#lease);
    } catch (error) {
      // Prune deletes what stays; a broken disk fails the pull elsewhere.
      if (!(error instanceof PullError)) throw error;
    }
  }
}

function listed({ descriptor, diffId, cachedTarBytes }: ImageLayer): ListedLayer {
  const { digest, sizeBytes } = descriptor;
  return { digest, diffId, sizeBytes, isCached: cachedTarBytes !== undefined };
}

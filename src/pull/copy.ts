import { formatReference, parseReference, type Reference } from '../format/reference.js';
import { createCounters } from '../pool/counters.js';
import { expandShortName } from '../registry/endpoints.js';
import { type Registries, readRegistries } from '../registry/registries-conf.js';
import { signatureWarning } from '../registry/signature-policy.js';
import { storePaths } from '../store/paths.js';
import { outsideStore } from '../store/storage-error.js';
import { openArchiveTarget } from './archive-target.js';
import { type CopyFigures, copyBlobs } from './copy-blobs.js';
import { type CopySource, readCopySource } from './copy-source.js';
import type { CopyTarget } from './copy-target.js';
import { hostsOf } from './foreign.js';
import { openLayoutTarget } from './layout-target.js';
import type { PullOptions } from './options.js';
import { Progress } from './progress.js';
import { RegistryLink } from './registry-link.js';
import { type Settings, settle } from './settings.js';
import { Stop } from './stop.js';
import { Workers } from './workers.js';

/** A copy keeps nothing. */
const NO_STORE = '';

export interface CopyOptions extends Omit<PullOptions, 'store' | 'policy'> {
  /** A directory that is or becomes an OCI layout, or a file that becomes one as a tar. */
  readonly destination: { readonly kind: 'layout' | 'archive'; readonly path: string; readonly tag?: string };
  /** Everything that an index names, and not one platform of it. */
  readonly allPlatforms?: boolean;
}

export interface CopyResult extends CopyFigures {
  readonly image: string;
  /** Of the manifest, or of the index with all platforms. */
  readonly digest: string;
  readonly misses: number;
  readonly durationMs: number;
}

/**
 * Copies an image into an OCI layout, blobs byte for byte: its digest stays what it is. What the layout has is not fetched, and
 * a copy that was broken off goes on where it ended.
 * @throws PullError; no blob has its name before it is proven, and the image none before all of them are
 */
export async function copyImage(reference: string, options: CopyOptions): Promise<CopyResult> {
  const copy = new Copy(reference, options, await readRegistries(process.env));
  try {
    return await copy.run();
  } catch (error) {
    throw outsideStore(error);
  } finally {
    await copy.close();
  }
}

/** One copy from the reference to the layout's index. */
class Copy {
  readonly stop = new Stop();
  readonly #options: CopyOptions;
  readonly #settings: Settings;
  readonly #reference: Reference;
  readonly #image: string;
  readonly #counters = createCounters();
  readonly #progress: Progress;
  readonly #link: RegistryLink;
  readonly #unfollow: () => void;
  readonly #startedMs = performance.now();
  #target: Promise<CopyTarget> | undefined;
  #workers: Promise<Workers> | undefined;

  constructor(reference: string, options: CopyOptions, registries: Registries | undefined) {
    this.#options = options;
    this.#settings = settle({ ...options, store: NO_STORE });
    this.#reference = parseReference(reference, (name) => expandShortName(name, registries));
    this.#image = formatReference(this.#reference);
    this.#progress = new Progress(this.#counters, options.onEvent);
    this.#link = new RegistryLink({
      settings: this.#settings,
      reference: this.#reference,
      registries,
      counters: this.#counters,
      stop: this.stop,
      emit: this.#progress.emit,
    });
    this.#unfollow = this.stop.follow(options.signal, 'the copy was interrupted');
  }

  /** Ends at once when it is stopped, but not while the image gets its name: nobody else may write there meanwhile. */
  async run(): Promise<CopyResult> {
    const source = await this.#readSource();
    this.#target = this.#openTarget(source);
    const target = await this.#target;
    const { context } = await this.stop.guard(this.#startWorkers(source));
    const figures = await copyBlobs(context, target, source);
    await target.finish(source);
    return {
      image: this.#image,
      digest: source.root.digest,
      ...figures,
      misses: this.#link.patience.misses,
      durationMs: Math.round(performance.now() - this.#startedMs),
    };
  }

  async close(): Promise<void> {
    this.#unfollow();
    this.#progress.close();
    this.#link.close();
    const workers = await this.#workers?.catch(() => undefined); // whoever awaits the start hears of it
    await workers?.close();
    const target = await this.#target?.catch(() => undefined); // the same
    target?.close();
  }

  async #readSource(): Promise<CopySource> {
    const { emit } = this.#progress;
    emit({ event: 'resolving', image: this.#image });
    const warning = signatureWarning(this.#reference, process.env);
    if (warning !== undefined) emit({ event: 'warning', message: warning });
    const { digest, tag = 'latest' } = this.#reference;
    const source = await this.#link.asking(() =>
      readCopySource(this.#link.session, digest ?? tag, this.#settings, this.#options.allPlatforms === true),
    );
    emit({
      event: 'resolved',
      image: this.#image,
      digest: source.root.digest,
      platform: source.platform,
      layers: source.layers.size,
      totalBytes: [...source.blobs.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    });
    for (const layer of source.leftOut) {
      const message = `layer ${layer.digest} stays at ${hostsOf(layer)}; --allow-foreign copies it`;
      emit({ event: 'warning', message });
    }
    return source;
  }

  #openTarget(source: CopySource): Promise<CopyTarget> {
    const { kind, path, tag } = this.#options.destination;
    if (kind === 'archive') return openArchiveTarget(path, tag, source);
    const onWait = () => this.#progress.emit({ event: 'waiting-for-layers', layers: source.layers.size });
    return openLayoutTarget(path, { tag, stop: this.stop, onWait });
  }

  async #startWorkers(source: CopySource): Promise<Workers> {
    const { session, patience, concurrency } = this.#link;
    this.#workers = Workers.start({
      settings: this.#settings,
      setup: { storeRoot: NO_STORE, counters: this.#counters, ...this.#link.setup },
      network: await this.#link.network(),
      layers: source.blobs.size,
      session,
      patience,
      concurrency,
      paths: storePaths(NO_STORE),
      stop: this.stop,
      emit: this.#progress.emit,
    });
    return this.#workers;
  }
}

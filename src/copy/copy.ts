import { resolve } from 'node:path';
import { requireFile } from '../export/export-schemes.js';
import { asOutOfResources, outsideStore } from '../files/storage-error.js';
import { isDigest } from '../format/digest.js';
import { ofImage } from '../format/error.js';
import { leavesSizeOut } from '../format/manifest.js';
import type { Stages } from '../pool/stages.js';
import { hostsOf, measureBlobs } from '../pull/blob-locations.js';
import type { FetchFigures } from '../pull/layer.js';
import type { PullOptions, RunOptions } from '../pull/pull-options.js';
import { PullSession } from '../pull/pull-session.js';
import { Workers } from '../pull/workers.js';
import { getBlob } from '../store/image-record.js';
import { openStoreToRead, storePaths } from '../store/paths.js';
import { type CopyFigures, type CopyTarget, copyBlobs } from './copy-blobs.js';
import { type CopySource, type DocumentSource, readCopySource } from './copy-source.js';
import { openArchiveTarget, openLayoutTarget, requireLayout } from './copy-targets.js';

/** A copy uses no store. */
const NO_STORE = '';

/** Options of a copy: those of a pull without a store, and where to. */
export interface CopyOptions extends Omit<PullOptions, 'store' | 'policy'> {
  /** A directory that is or becomes an OCI layout, or a file to write one to as a tar. */
  readonly destination: { readonly kind: 'layout' | 'archive'; readonly path: string; readonly tag?: string };
  /** A store: manifests that it has are not requested again by their digests. */
  readonly documents?: string;
  /** Copy everything that an index names, instead of one platform. */
  readonly allPlatforms?: boolean;
}

/**
 * Checks that a copy can be written to this destination, as `copyImage` does before its first
 * request.
 * @throws PullError `option-malformed`; as `storageError`
 */
export function checkCopyDestination({ kind, path }: CopyOptions['destination']): void {
  if (kind === 'archive') requireFile(resolve(path));
  else requireLayout(resolve(path));
}

/** The result of a copy, which is in its destination, verified. */
export interface CopyResult extends CopyFigures {
  readonly image: string;
  /** The digest of the manifest, or of the index with all platforms. */
  readonly digest: string;
  readonly misses: number;
  readonly durationMs: number;
  readonly stages: Stages;
}

/**
 * Copies an image into an OCI layout, byte for byte, so that it keeps its digest. Does not fetch
 * blobs that the layout has, and resumes an interrupted copy. Names each blob after it is verified,
 * and the image after all of them.
 * @throws PullError
 */
export async function copyImage(
  reference: string,
  options: CopyOptions & Pick<RunOptions, 'shared' | 'stages'>,
): Promise<CopyResult> {
  checkCopyDestination(options.destination);
  const interrupted = 'the copy was interrupted';
  const session = await PullSession.open(reference, { ...options, store: NO_STORE }, interrupted);
  const copy = new Copy(session, options);
  try {
    const result = await copy.run();
    session.end();
    return result;
  } catch (error) {
    throw ofImage(outsideStore(asOutOfResources(error)), session.source.image);
  } finally {
    session.close();
    await copy.close();
    session.endTurns();
  }
}

/** One copy from the reference to the layout's index. */
class Copy {
  readonly #options: CopyOptions;
  readonly #session: PullSession;
  readonly #startedMs = performance.now();
  /** The cost of requests for sizes. */
  readonly #measuring: FetchFigures = { fetchedBytes: 0, requests: 0 };
  #target: Promise<CopyTarget> | undefined;
  #workers: Promise<Workers> | undefined;

  constructor(session: PullSession, options: CopyOptions) {
    this.#session = session;
    this.#options = options;
  }

  /**
   * Ends at once on a stop, except while the image is named: no other copy may write there
   * meanwhile.
   */
  async run(): Promise<CopyResult> {
    const read = await this.#readSource();
    await this.#session.takeTurn('pull');
    const source = await this.#withSizes(read);
    this.#target = this.#openTarget(source);
    const target = await this.#target;
    const { context } = await this.#session.stop.guard(this.#startWorkers(source));
    const figures = await copyBlobs(context, target, source);
    const { clock } = this.#session.stages;
    await clock.during('sync', 'wait', () => target.finish(source));
    return {
      image: this.#session.source.image,
      digest: source.root.digest,
      ...figures,
      fetchedBytes: figures.fetchedBytes + this.#measuring.fetchedBytes,
      requests: figures.requests + this.#measuring.requests,
      misses: this.#session.retries.misses,
      durationMs: Math.round(performance.now() - this.#startedMs),
      stages: this.#session.stages.result(),
    };
  }

  async close(): Promise<void> {
    const workers = await this.#workers?.catch(() => undefined); // `run` throws it
    await workers?.close();
    const target = await this.#target?.catch(() => undefined);
    target?.close();
  }

  async #readSource(): Promise<CopySource> {
    const {
      settings,
      source: { name, image },
    } = this.#session;
    const { emit } = this.#session.progress;
    const source = await this.#session.resolve((registry) =>
      readCopySource(
        this.#documents(registry),
        name,
        settings,
        this.#options.allPlatforms === true,
        (message) => emit({ event: 'warning', message }),
      ),
    );
    emit({
      event: 'resolved',
      image,
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

  #documents(registry: PullSession['registry']): DocumentSource {
    if (this.#options.documents === undefined) return registry;
    const paths = openStoreToRead(resolve(this.#options.documents));
    return {
      blobUrl: registry.blobUrl,
      getBlob: registry.getBlob,
      async getManifest(name) {
        const bytes = isDigest(name) ? getBlob(paths, name) : undefined;
        if (bytes === undefined) return registry.getManifest(name);
        // URLs of blobs need what the first response tells.
        await registry.open();
        return { bytes, mediaType: undefined };
      },
    };
  }

  async #withSizes(source: CopySource): Promise<CopySource> {
    const blobs = [...source.blobs.values()];
    if (!blobs.some(leavesSizeOut)) return source;
    const { context } = await this.#session.stop.guard(this.#startWorkers(source));
    const requested = blobs.map(({ urls, ...blob }) => ({ blob, urls }));
    const measured = await context.stages.clock.within('metadata', () => measureBlobs(context, requested));
    for (const { fetchedBytes, requests } of measured.filter((one) => one !== undefined)) {
      this.#measuring.fetchedBytes += fetchedBytes;
      this.#measuring.requests += requests;
    }
    const sized = blobs.map((blob, i) => ({ ...blob, sizeBytes: measured[i]?.sizeBytes ?? blob.sizeBytes }));
    return { ...source, blobs: new Map(sized.map((blob) => [blob.digest, blob])) };
  }

  #openTarget(source: CopySource): Promise<CopyTarget> {
    const { kind, path, tag } = this.#options.destination;
    const { stop, progress } = this.#session;
    const onWait = () => progress.emit({ event: 'waiting-for-layers', layers: source.layers.size });
    const options = { tag, stop, onWait };
    return kind === 'archive' ? openArchiveTarget(path, source, options) : openLayoutTarget(path, options);
  }

  #startWorkers(source: CopySource): Promise<Workers> {
    const { emit } = this.#session.progress;
    const { size: layers } = source.blobs;
    const paths = storePaths(NO_STORE);
    this.#workers ??= Workers.start({
      session: this.#session,
      paths,
      layers,
      streamBytes: [],
      emit,
      reusesBuffers: true,
    });
    return this.#workers;
  }
}

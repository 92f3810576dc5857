import { resolve } from 'node:path';
import { Readable } from 'node:stream';
import { type CopyOptions, type CopyResult, copyImage } from '../copy/copy.js';
import { abortError, linkSignals, onAbort } from '../format/abort.js';
import { PullError } from '../format/error.js';
import { isObject } from '../format/strict-json.js';
import {
  type ManifestDocument,
  type Resolution,
  readManifestOf,
  resolveReference,
} from '../pull/named-manifest.js';
import { inspectImage, pullImage } from '../pull/pull.js';
import { Stop } from '../pull/pull-context.js';
import { type PullOptions, type RunOptions, resolveOptions } from '../pull/pull-options.js';
import { type ImageInspection, type Plan, type PullResult, planOf } from '../pull/pull-result.js';
import { Shared } from '../pull/shared.js';
import { listTags, type TagListing } from '../pull/tags.js';
import { eventsOf, type ProgressEvent } from './events.js';
import { type ExportRequest, type ExportResult, runExport } from './export-image.js';
import { type FileEntry, type FileQuery, listImage, readImageFile, tarOf } from './files.js';
import { type ClientStore, createClientStore } from './store.js';

/** Options of a client: defaults and limits of all its calls. */
export type ClientOptions = Omit<PullOptions, 'signal' | 'onEvent'>;

/** Options of one call; `platform` and `policy` replace those of the client. */
export type CallOptions = Pick<PullOptions, 'platform' | 'policy' | 'signal' | 'onEvent'>;

const CLOSED = 'the client is closed';

/**
 * Pulls, copies and exports images with one store. Calls may run at the same time: they share
 * tokens and the rate limit, and take turns for threads and connections, so that several pulls take
 * no more of them than one. A pull uses all cores and the whole network by itself; sharing them
 * would make each slower and none sooner.
 *
 * ```js
 * await using client = new Client({ store: '/var/lib/zpull' });
 * const { digest } = await client.pull('alpine');
 * ```
 */
export class Client {
  readonly #options: ClientOptions;
  readonly #shared: Shared;
  readonly #closing = new AbortController();
  readonly #running = new Set<Promise<unknown>>();
  /** Looks after the store. */
  readonly store: ClientStore;

  /** @throws PullError `option-malformed`, naming the option */
  constructor(options: ClientOptions) {
    const { limitRate, store } = resolveOptions(options);
    if (typeof store !== 'string' || store === '') {
      throw new PullError('option-malformed', 'store must be the path of a directory');
    }
    this.#options = { ...options, store: resolve(store) };
    this.#shared = new Shared(limitRate);
    this.store = createClientStore(this.#options.store, (call, work) => this.#run(call, work));
  }

  /**
   * Pulls an image into the store, each layer verified by its DiffID. Sizes in the result are bytes.
   * @throws PullError; what was received before stays in the store, and the next pull resumes there
   */
  pull(image: string, options: CallOptions = {}): Promise<PullResult> {
    return this.#run(options, (run) => pullImage(image, run));
  }

  /**
   * Pulls an image and yields its events, the result as the last one. Leaving the loop ends the
   * pull.
   *
   * ```js
   * for await (const event of client.pullEvents('alpine')) {
   *   if (event.event === 'progress') console.log(event.receivedBytes, event.totalBytes);
   *   if (event.event === 'result') console.log(event.result.digest);
   * }
   * ```
   * @throws PullError as `pull`
   */
  pullEvents(image: string, options: CallOptions = {}): AsyncGenerator<ProgressEvent, void, undefined> {
    return eventsOf((call) => this.pull(image, { ...options, ...call }), options);
  }

  /**
   * Returns what an image is (platforms, config, formats of the layers) and all that `plan` returns.
   * Fetches no content and writes nothing.
   * @throws PullError as `pull`
   */
  inspect(image: string, options: CallOptions = {}): Promise<ImageInspection> {
    return this.#run(options, (run) => inspectImage(image, run));
  }

  /**
   * What a pull would fetch and reuse, as `zpull plan --json` prints it. Fetches no content and writes
   * nothing.
   * @throws PullError as `pull`
   */
  async plan(image: string, options: CallOptions = {}): Promise<Plan> {
    return planOf(await this.inspect(image, options));
  }

  /**
   * The digests that a reference names now: of the manifest for the platform, and of the index. A
   * HEAD request suffices for an image that was pulled before and has not moved.
   * @throws PullError as `pull`
   */
  resolve(image: string, options: CallOptions = {}): Promise<Resolution> {
    return this.#run(options, (run) => resolveReference(image, run));
  }

  /**
   * The manifest or the index that a reference names, byte for byte; with `platform`, the manifest
   * for it.
   * @throws PullError as `pull`
   */
  manifest(image: string, options: CallOptions = {}): Promise<ManifestDocument> {
    return this.#run(options, (run) => readManifestOf(image, run, options.platform !== undefined));
  }

  /**
   * The tags of a repository (`host/name`, or `oci:DIR`), all pages.
   * @throws PullError as `listTags`
   */
  tags(repository: string, options: Pick<CallOptions, 'signal' | 'onEvent'> = {}): Promise<TagListing> {
    return this.#run(options, ({ platform: _, ...run }) => listTags(repository, run));
  }

  /**
   * Copies an image byte for byte into an OCI layout or an archive of one. Uses no store.
   *
   * ```js
   * await client.copy({ image: 'alpine', to: { kind: 'archive', path: 'alpine.tar' } });
   * ```
   * @throws PullError as `pull`; `option-malformed` for the destination
   */
  copy(request: CopyRequest): Promise<CopyResult> {
    const { image, to, allPlatforms = false, ...call } = asRequest(request);
    return this.#run(call, ({ store: _, policy: _policy, ...run }) =>
      copyImage(image, { ...run, destination: to, allPlatforms }),
    );
  }

  /**
   * Exports an image to files, and pulls it first if it is not in the store. What the pull has
   * verified is not hashed again.
   *
   * ```js
   * await client.exportImage({ image: 'alpine', to: { kind: 'rootfs', path: './alpine' } });
   * ```
   * @throws PullError as `pull`; `option-malformed` for the destination; `digest-mismatch` for a
   *   layer that is damaged in the store; `path-not-found`
   */
  exportImage(request: ExportRequest): Promise<ExportResult> {
    const { signal, platform, policy, onEvent, ...what } = asRequest(request);
    const call = { ...(signal && { signal }), ...(platform && { platform }), ...(policy && { policy }) };
    return this.#run(this.#missing(call), (run) =>
      this.#exporting(run, () => runExport({ ...what, ...(onEvent && { onEvent }) }, run)),
    );
  }

  /**
   * The file system of an image as one tar, or of the file or directory at `path`. Pulls it first if
   * it is not in the store. The last chunk comes after all layers are proven: a stream that ends
   * has verified bytes, one that fails must not be used. At most four streams and exports run at a
   * time: read or destroy each.
   * @throws PullError (the stream's `error` event) as `exportImage`
   */
  tar(image: string, options: CallOptions & FileQuery = {}): Readable {
    const { path, ...call } = options;
    return this.#stream(this.#missing(call), (run) => tarOf(image, path, run));
  }

  /**
   * The tar of a layer in the store. As with `tar`, the last chunk comes after the proof.
   * @throws PullError (the stream's `error` event) `store-broken` when it is not in the store,
   *   `digest-mismatch` when it is damaged there
   */
  openLayer(diffId: string, options: Pick<CallOptions, 'signal'> = {}): Readable {
    return this.#stream(options, async ({ store, signal }) => {
      const { streamLayer } = await import('../export/export-streams.js');
      return streamLayer({ store, diffIds: [diffId], ...(signal && { signal }) });
    });
  }

  /**
   * Reads one file of an image; links are followed. Fetches only what it needs: of chunked layers
   * only that file.
   * @throws PullError as `pull`; `path-not-found`; `unsupported` when it is longer than `maxBytes`
   *   (default 64 MiB)
   */
  readFile(
    image: string,
    path: string,
    options: CallOptions & { readonly maxBytes?: number } = {},
  ): Promise<Buffer> {
    const { maxBytes, ...call } = options;
    return this.#run(this.#missing(call), (run) =>
      this.#exporting(run, () => readImageFile(image, path, maxBytes, run)),
    );
  }

  /**
   * Lists the file system of an image, or of the file or directory at `path`. Pulls it first if it
   * is not in the store; all layers are hashed.
   * @throws PullError as `exportImage`
   */
  list(image: string, options: CallOptions & FileQuery = {}): Promise<FileEntry[]> {
    const { path, ...call } = options;
    return this.#run(this.#missing(call), (run) => this.#exporting(run, () => listImage(image, path, run)));
  }

  /**
   * Ends all calls that still run, as an abort does, and waits until their threads have ended. Later
   * calls fail.
   */
  async close(): Promise<void> {
    this.#closing.abort(new PullError('interrupted', CLOSED, { hint: 'make a new client' }));
    await Promise.allSettled(this.#running);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** What needs an image in the store takes it from there by default. */
  #missing(call: CallOptions): CallOptions {
    return { ...call, policy: call.policy ?? this.#options.policy ?? 'missing' };
  }

  /** Runs `work`, which ends with the client. */
  async #run<T>(call: CallOptions, work: (options: RunOptions) => Promise<T>): Promise<T> {
    const options = { ...this.#options, ...call };
    resolveOptions(options);
    const linked = linkSignals(this.#closing.signal, call.signal);
    const running = linked.signal.aborted
      ? Promise.reject<T>(abortError(linked.signal, 'the call was interrupted'))
      : work({ ...options, signal: linked.signal, shared: this.#shared });
    this.#running.add(running);
    try {
      return await running;
    } finally {
      linked.unlink();
      this.#running.delete(running);
    }
  }

  /** Runs an export in its turn. */
  async #exporting<T>({ signal }: RunOptions, work: () => Promise<T>): Promise<T> {
    const endTurn = await this.#exportTurn(signal);
    try {
      return await work();
    } finally {
      endTurn();
    }
  }

  async #exportTurn(signal: AbortSignal | undefined): Promise<() => void> {
    const stop = new Stop();
    const unfollow = stop.follow(signal, 'the export was interrupted');
    try {
      return await this.#shared.turn('export', stop);
    } finally {
      unfollow();
    }
  }

  #stream(
    call: CallOptions,
    open: (options: RunOptions) => Promise<AsyncGenerator<Buffer, void, undefined>>,
  ): Readable {
    const linked = linkSignals(this.#closing.signal, call.signal);
    const { signal } = linked;
    const chunks = async function* (this: Client) {
      const options = { ...this.#options, ...call, signal, shared: this.#shared };
      resolveOptions(options);
      const endTurn = await this.#exportTurn(signal);
      try {
        yield* await open(options);
      } finally {
        endTurn();
      }
    };
    const stream = Readable.from(chunks.call(this), { objectMode: false });
    const removeAbort = onAbort(signal, () =>
      stream.destroy(abortError(signal, 'the stream was interrupted')),
    );
    const closed = new Promise<void>((done) => {
      stream.once('close', () => {
        removeAbort();
        linked.abort();
        linked.unlink();
        done();
      });
    });
    this.#running.add(closed);
    void closed.then(() => this.#running.delete(closed));
    return stream;
  }
}

/** What to copy and where to. */
export interface CopyRequest extends CallOptions {
  readonly image: string;
  readonly to: CopyOptions['destination'];
  /** Copy everything that an index names, instead of one platform; default false. */
  readonly allPlatforms?: boolean;
}

/** @throws PullError `option-malformed` unless it names a destination */
function asRequest<R extends { readonly to: { readonly kind: string; readonly path: string } }>(
  request: R,
): R {
  const to: unknown = isObject(request) ? request['to'] : undefined;
  if (isObject(to) && typeof to['kind'] === 'string' && typeof to['path'] === 'string' && to['path'] !== '') {
    return request;
  }
  throw new PullError('option-malformed', 'to must be an object with kind and path', {
    hint: "write to: { kind: 'rootfs', path: './root' }, for example",
  });
}

/** Cached redirect targets; an image has at most some hundred layers. */
const MAX_TARGETS = 1024;

/**
 * A target that is refused within this time after it was found has not expired: it was valid for
 * one request only. Signed URLs are valid for a minute at least.
 */
const EXPIRED_EARLY_MS = 200;

/** Twice in a row is no coincidence. */
const MAX_EARLY = 2;

/** How threads share targets. */
export interface SharedTargets {
  /**
   * A target is refused, or undefined: none is cached. Resolves with a valid one; with `renew` when
   * this thread is to ask the registry and call `renewed` afterwards; with undefined when another
   * thread has asked in vain.
   */
  expired(blobUrl: string, target: URL | undefined): Promise<URL | 'renew' | undefined>;
  renewed(blobUrl: string, target: URL | undefined): void;
  /** The target failed, and no thread is to use it. */
  failed(blobUrl: string, target: URL): void;
}

interface CachedTarget {
  readonly target: URL;
  /** When a redirect led there; undefined when another thread has shared it. */
  readonly foundMs: number | undefined;
  /** When it was first requested without a redirect. */
  requestedMs?: number;
  /** It has served a request without a redirect. */
  isReused: boolean;
}

interface Renewal {
  readonly over: Promise<void>;
  readonly end: () => void;
  /** Other threads wait for the target that this one finds. */
  shared: boolean;
}

/**
 * The cached redirect targets of blobs, for all ranges of a thread. When none is cached or the last
 * has expired, one range of all threads asks the registry, and the others wait for what it finds.
 */
export class RedirectTargets {
  readonly #known = new Map<string, CachedTarget>();
  readonly #renewals = new Map<string, Renewal>();
  /** Expired targets: requests that were sent there before may still succeed. */
  readonly #expired = new WeakSet<URL>();
  readonly #shared: SharedTargets | undefined;
  /** RedirectTargets in a row that were refused early. */
  #early = 0;

  constructor(shared: SharedTargets | undefined) {
    this.#shared = shared;
  }

  /**
   * Whether targets seem to be valid for one request each: caching them would double the requests.
   */
  get areSingleUse(): boolean {
    return this.#early >= MAX_EARLY;
  }

  /** The blob's target; undefined: ask the registry. Waits for a range that does. */
  async get(blobUrl: string): Promise<URL | undefined> {
    await this.#renewals.get(blobUrl)?.over;
    const known = this.#known.get(blobUrl);
    if (known !== undefined) known.requestedMs ??= performance.now();
    return known?.target;
  }

  /**
   * As `get`, for a registry that is likely to redirect. `leads`: the caller is to ask the
   * registry, and calls `renewed` afterwards.
   */
  async find(blobUrl: string): Promise<{ readonly target?: URL | undefined; readonly leads: boolean }> {
    if (this.#known.has(blobUrl) || this.#renewals.has(blobUrl)) {
      return { target: await this.get(blobUrl), leads: false };
    }
    const leads = await this.#renew(blobUrl, undefined);
    return leads ? { leads } : { target: await this.get(blobUrl), leads };
  }

  /** A target has begun to serve a request. */
  found(blobUrl: string, target: URL): void {
    if (this.#expired.has(target)) return;
    const known = this.#known.get(blobUrl);
    if (known?.target === target) {
      known.isReused = true;
      if (known.foundMs !== undefined) this.#early = 0;
    } else this.#remember(blobUrl, target, performance.now());
    this.renewed(blobUrl);
  }

  /** A URL failed: its storage node may be gone, and the registry can name another. */
  forget(blobUrl: string, failed: URL): void {
    if (this.#known.get(blobUrl)?.target.href !== failed.href) return;
    this.#known.delete(blobUrl);
    this.#shared?.failed(blobUrl, failed);
  }

  /** The target is refused. Returns whether the caller is to ask the registry, as `find`. */
  async expired(blobUrl: string, target: URL): Promise<boolean> {
    this.#expired.add(target);
    const known = this.#known.get(blobUrl);
    if (known?.target !== target) return false;
    this.#known.delete(blobUrl);
    const { foundMs, requestedMs = Number.POSITIVE_INFINITY, isReused } = known;
    if (foundMs !== undefined)
      this.#early = isReused || requestedMs - foundMs > EXPIRED_EARLY_MS ? 0 : this.#early + 1;
    return this.#renew(blobUrl, target);
  }

  /** The registry has been asked; without a new target each waiting range asks for itself. */
  renewed(blobUrl: string): void {
    const renewal = this.#renewals.get(blobUrl);
    if (renewal === undefined) return;
    this.#renewals.delete(blobUrl);
    renewal.end();
    if (renewal.shared) this.#shared?.renewed(blobUrl, this.#known.get(blobUrl)?.target);
  }

  #remember(blobUrl: string, target: URL, foundMs: number | undefined): void {
    if (this.#known.size >= MAX_TARGETS) this.#known.clear();
    this.#known.set(blobUrl, { target, foundMs, isReused: false });
  }

  /** Whether the caller is to ask the registry, since no other thread or range has. */
  async #renew(blobUrl: string, target: URL | undefined): Promise<boolean> {
    let end = (): void => {};
    const over = new Promise<void>((resolve) => {
      end = resolve;
    });
    const renewal: Renewal = { over, end, shared: false };
    this.#renewals.set(blobUrl, renewal);
    const answer = this.#shared === undefined ? undefined : await this.#shared.expired(blobUrl, target);
    if (this.#renewals.get(blobUrl) !== renewal) {
      // A range that had asked the registry before has found one meanwhile.
      if (answer === 'renew') this.#shared?.renewed(blobUrl, this.#known.get(blobUrl)?.target);
      return false;
    }
    renewal.shared = answer === 'renew';
    if (answer === undefined || answer === 'renew') return true;
    this.#remember(blobUrl, answer, undefined);
    this.renewed(blobUrl);
    return false;
  }
}

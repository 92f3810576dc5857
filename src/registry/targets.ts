/** Redirect targets remembered; an image has at most some hundred layers. */
const MAX_TARGETS = 1024;

/** How threads share the targets that replace expired ones. */
export interface SharedTargets {
  /**
   * A target is refused. Resolves with the one that replaces it; with `renew` when this thread is to ask the registry,
   * and say `renewed` afterwards; with undefined when another thread has asked in vain.
   */
  expired(blobUrl: string, target: URL): Promise<URL | 'renew' | undefined>;
  renewed(blobUrl: string, target: URL | undefined): void;
  /** The target failed, and serves nobody. */
  failed(blobUrl: string, target: URL): void;
}

interface Renewal {
  readonly over: Promise<void>;
  readonly end: () => void;
  /** Other threads wait for what this one finds. */
  shared: boolean;
}

/**
 * Where the redirects of blobs led, for all ranges of a thread. When a target has expired, one range of all threads
 * asks the registry for a new one, and the others wait for what it finds.
 */
export class Targets {
  readonly #known = new Map<string, URL>();
  readonly #renewals = new Map<string, Renewal>();
  /** Expired ones: what was asked of them before may still be answered well. */
  readonly #expired = new WeakSet<URL>();
  readonly #shared: SharedTargets | undefined;

  constructor(shared: SharedTargets | undefined) {
    this.#shared = shared;
  }

  /** The blob's target; undefined when the registry is to be asked. */
  async get(blobUrl: string): Promise<URL | undefined> {
    await this.#renewals.get(blobUrl)?.over;
    return this.#known.get(blobUrl);
  }

  /** A target has begun to answer well. */
  found(blobUrl: string, target: URL): void {
    if (this.#expired.has(target)) return;
    if (this.#known.size >= MAX_TARGETS) this.#known.clear();
    this.#known.set(blobUrl, target);
    this.renewed(blobUrl);
  }

  /** A URL failed: the storage node behind it may be gone for good, and the registry knows a living one. */
  forget(blobUrl: string, failed: URL): void {
    if (this.#known.get(blobUrl)?.href !== failed.href) return;
    this.#known.delete(blobUrl);
    this.#shared?.failed(blobUrl, failed);
  }

  /** The target is refused from now on. True: the caller is the one to ask the registry, and says `renewed` afterwards. */
  async expired(blobUrl: string, target: URL): Promise<boolean> {
    this.#expired.add(target);
    if (this.#known.get(blobUrl) !== target) return false;
    this.#known.delete(blobUrl);
    let end = (): void => {};
    const over = new Promise<void>((resolve) => {
      end = resolve;
    });
    const renewal: Renewal = { over, end, shared: false };
    this.#renewals.set(blobUrl, renewal);
    const answer = this.#shared === undefined ? undefined : await this.#shared.expired(blobUrl, target);
    if (this.#renewals.get(blobUrl) !== renewal) {
      // A range that had asked the registry before has found one meanwhile.
      if (answer === 'renew') this.#shared?.renewed(blobUrl, this.#known.get(blobUrl));
      return false;
    }
    renewal.shared = answer === 'renew';
    if (answer === undefined || answer === 'renew') return true;
    this.found(blobUrl, answer);
    return false;
  }

  /** Whoever was to ask the registry has done so; without a new target each asks for itself. */
  renewed(blobUrl: string): void {
    const renewal = this.#renewals.get(blobUrl);
    if (renewal === undefined) return;
    this.#renewals.delete(blobUrl);
    renewal.end();
    if (renewal.shared) this.#shared?.renewed(blobUrl, this.#known.get(blobUrl));
  }
}

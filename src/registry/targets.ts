/** Redirect targets remembered; an image has at most some hundred layers. */
const MAX_TARGETS = 1024;

interface Renewal {
  readonly over: Promise<void>;
  readonly end: () => void;
}

/**
 * Where the redirects of blobs led, for all ranges of a thread. When a target has expired, one range asks the registry
 * for a new one, and the others wait for what it finds.
 */
export class Targets {
  readonly #known = new Map<string, URL>();
  readonly #renewals = new Map<string, Renewal>();

  /** The blob's target; undefined when the registry is to be asked. */
  async get(blobUrl: string): Promise<URL | undefined> {
    await this.#renewals.get(blobUrl)?.over;
    return this.#known.get(blobUrl);
  }

  /** A target has begun to answer well. */
  found(blobUrl: string, target: URL): void {
    if (this.#known.size >= MAX_TARGETS) this.#known.clear();
    this.#known.set(blobUrl, target);
    this.renewed(blobUrl);
  }

  /** The target failed: the storage node behind it may be gone for good, and the registry knows a living one. */
  forget(blobUrl: string): void {
    this.#known.delete(blobUrl);
  }

  /** The target is refused from now on. True: the caller is the one to ask the registry, and says `renewed` afterwards. */
  expired(blobUrl: string, target: URL): boolean {
    if (this.#known.get(blobUrl) !== target) return false;
    this.#known.delete(blobUrl);
    let end = (): void => {};
    const over = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#renewals.set(blobUrl, { over, end });
    return true;
  }

  /** Whoever was to ask the registry has done so; without a new target each asks for itself. */
  renewed(blobUrl: string): void {
    this.#renewals.get(blobUrl)?.end();
    this.#renewals.delete(blobUrl);
  }
}

import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, PullError } from '../format/error.js';
import { bookWait, sharedClockMs, type Wait } from './backoff.js';
import type { Next } from './classify.js';
import { foreignHost, NO_ENDPOINT, type Trait } from './endpoint-choice.js';
import type { RangeClient, RangeJob } from './range-client.js';

/** What one endpoint may say while another has the blob. */
const PASSED_ON: ReadonlySet<ErrorCode> = new Set([
  'blob-not-found',
  'unauthorized',
  'network-hopeless',
  'redirect-refused',
  'answer-unexpected',
  'metadata-malformed',
  // It gives whole blobs only.
  'unsupported',
]);

/** Ranges that were told to wait at the same time come back within this time, not all at once. */
const SPREAD_MS = 1000;

/** What is known of a failure besides its sentence. */
type Failing = Pick<Next & { readonly next: 'fail' }, 'hint' | 'sign'>;

/** Where one request goes. */
export interface Place {
  readonly url: URL;
  /** The same, when it is the redirect target that was remembered, or what redirects led from there. */
  readonly target: URL | undefined;
  /** Redirects that led here. */
  readonly hops: number;
  /** No redirect has left the registry so far: it may see Authorization. */
  readonly trusted: boolean;
}

/**
 * Which URL a range is asked for next: at which endpoint, under which Authorization, and whether at the blob's own URL or at
 * the target that it was last redirected to. Waits for an endpoint that asked to be left alone.
 */
export class NextUrl {
  /** As `foreignHost` for a foreign blob, which has one place and no token. */
  endpoint: number;
  /** The blob's URL at that endpoint. */
  blobUrl: string;
  /** New values of Authorization since the registry last accepted one. */
  renewals = 0;
  /** Responses in a row that asked to wait. */
  waited = 0;
  /** Requests have a Range header: the endpoint has not refused this one's. */
  ranged = true;
  readonly #client: RangeClient;
  readonly #job: RangeJob;
  /** Endpoints that failed since the last byte. */
  readonly #tried = new Set<number>();
  #authorization: string | undefined;
  #redirected: Place | undefined;
  /** The blob's URL while it is for this range to find out where that leads, and others wait for it. */
  #renewing: string | undefined;

  constructor(client: RangeClient, job: RangeJob) {
    this.#client = client;
    this.#job = job;
    this.blobUrl = job.blob.url;
    this.endpoint = job.blob.anonymous === true ? foreignHost(this.blobUrl) : NO_ENDPOINT;
  }

  /** Whether the caller would rather have the whole blob than skip to its range. */
  get isPart(): boolean {
    const { blob, start, end, fullBlobInstead } = this.#job;
    return fullBlobInstead !== undefined && end - start < blob.sizeBytes;
  }

  /** The origin that may want credentials, if any may. */
  get origin(): string | undefined {
    return this.#job.blob.anonymous === true ? undefined : new URL(this.blobUrl).origin;
  }

  /** Whether a redirect may lead from https to http. */
  get allowHttp(): boolean {
    const { endpoints, elsewhere } = this.#client.options;
    return (endpoints[this.endpoint]?.transport ?? elsewhere).allowHttpStorage === true;
  }

  /**
   * Where to send the next request.
   * @throws PullError as `bookWait`
   */
  async next(): Promise<Place> {
    if (this.#redirected !== undefined) return this.#redirected;
    await this.#untilWelcome();
    let target = await this.#findTarget();
    // The range that asked the registry for all others may have been told to wait.
    while (await this.#untilWelcome()) target = await this.#findTarget();
    const url = target ?? new URL(this.blobUrl);
    return { url, target, hops: 0, trusted: url.origin === new URL(this.blobUrl).origin };
  }

  /** The value of Authorization that a request may bring along. */
  authorizationAt({ trusted }: Place): string | undefined {
    return trusted ? this.#authorization : undefined;
  }

  /** Whether an endpoint that may have the blob is known to give ranges. */
  get hasOthersWithRanges(): boolean {
    const { blob } = this.#job;
    return blob.anonymous !== true && this.#client.choice.givesRanges(blob.digest);
  }

  /** Whether the endpoint is known to answer so. */
  does(trait: Trait): boolean {
    return this.#client.choice.has(this.endpoint, trait);
  }

  /** The endpoint has answered so, or not so. */
  note(trait: Trait, holds = true): void {
    this.#client.choice.note(this.endpoint, trait, holds);
  }

  redirected(from: Place, to: URL): void {
    const trusted = from.trusted && to.origin === new URL(this.blobUrl).origin;
    this.#redirected = { url: to, target: from.target, hops: from.hops + 1, trusted };
  }

  /** A request was answered by something else than a redirect, or by nothing: the next one begins anew. */
  ended(): void {
    this.#redirected = undefined;
    if (this.#renewing === undefined) return;
    const blobUrl = this.#renewing;
    this.#renewing = undefined;
    this.#client.targets.renewed(blobUrl);
  }

  /** The wanted body begins to come from there. */
  found({ url }: Place): void {
    this.renewals = 0;
    this.waited = 0;
    const isRedirected = url.href !== this.blobUrl;
    this.note('serves-itself', !isRedirected);
    if (isRedirected && !this.does('one-time-targets')) this.#client.targets.found(this.blobUrl, url);
    this.ended();
  }

  /** New bytes have come: whatever failed before may be tried again. */
  progressed(): void {
    this.#tried.clear();
  }

  succeeded(): void {
    this.#client.choice.succeeded(this.endpoint);
  }

  /** The remembered target is refused. */
  async renewTarget(target: URL): Promise<void> {
    const { blobUrl } = this;
    const { targets } = this.#client;
    if (await targets.expired(blobUrl, target)) this.#renewing = blobUrl;
    if (targets.areGoodForOne) this.note('one-time-targets');
  }

  /** Takes the value of Authorization that there is by now: others may have renewed it. */
  async refreshToken(): Promise<void> {
    if (this.#job.blob.anonymous === true) return;
    this.#authorization = await this.#job.events.authorization(undefined, this.endpoint);
  }

  /** Whether there is another value of Authorization to ask with. */
  async renewToken(): Promise<boolean> {
    this.renewals += 1;
    this.#redirected = undefined;
    const refused = this.#authorization;
    this.#authorization = await this.#job.events.authorization(refused ?? '', this.endpoint);
    return this.#authorization !== undefined && this.#authorization !== refused;
  }

  /** A failure of the network: no miss while another endpoint is left to try. @throws what `events.miss` rejects with */
  async failed({ url, target }: Place, message: string, { hint, sign }: Failing): Promise<void> {
    this.#client.targets.forget(this.blobUrl, target ?? url);
    if (await this.#takeOver()) return;
    await this.#job.events.miss(message, { host: url.host, hint, sign });
    this.#tried.clear();
    await this.choose();
  }

  /** A server asked to wait: waits, unless another endpoint can be asked meanwhile. @throws PullError as `bookWait` */
  async wait(told: Wait): Promise<void> {
    if (await this.#takeOver(told.waitMs)) return;
    this.waited += 1;
    bookWait(this.#client.options.waits, told, Date.now());
    await this.#stepAside(told.waitMs, told);
    this.#tried.clear();
    await this.choose();
  }

  /**
   * Whether another endpoint goes on after one refused the blob, or answered as none should. Where others failed that may
   * have it, that is a miss; where they asked to wait, they are waited for. One that gives whole blobs only may send the next.
   */
  async passOn(error: unknown): Promise<boolean> {
    this.ended();
    const { blob, events } = this.#job;
    if (!(error instanceof PullError) || !PASSED_ON.has(error.code) || blob.anonymous === true) return false;
    const { choice } = this.#client;
    const isRangesIgnored = error.code === 'unsupported';
    if (!isRangesIgnored) choice.lacks(this.endpoint, blob.digest);
    else if (!this.hasOthersWithRanges) return false;
    this.#tried.add(this.endpoint);
    if (await this.choose()) return true;
    if (isRangesIgnored || !choice.mayBeHad(blob.digest)) return false;
    if (!choice.isToBeWaitedFor(blob.digest, sharedClockMs())) await events.miss(error.message);
    this.#tried.clear();
    return this.choose();
  }

  /** The range is in flight nowhere any more. */
  close(): void {
    this.ended();
    this.#client.choice.leave(this.endpoint);
  }

  /**
   * Semaphore to the endpoint that is to be asked next. One that cannot even be opened is passed over.
   * @returns false when every endpoint has failed since the last byte
   * @throws PullError of the last endpoint that could not be opened, when none could or none is left that may have the blob
   */
  async choose(): Promise<boolean> {
    const { blob } = this.#job;
    if (blob.anonymous === true) return this.#tried.size === 0;
    const { choice } = this.#client;
    const isFirst = this.#tried.size === 0;
    let failure: PullError | undefined;
    for (;;) {
      const endpoint = choice.next(blob.digest, this.#tried, sharedClockMs(), this.isPart);
      if (endpoint === undefined) {
        if (failure !== undefined && (isFirst || !choice.mayBeHad(blob.digest))) throw failure;
        return false;
      }
      try {
        await this.#turnTo(endpoint);
        return true;
      } catch (error) {
        if (!(error instanceof PullError)) throw error;
        failure = error;
        this.#tried.add(endpoint);
        if (error.code === 'network-hopeless') choice.failed(endpoint, sharedClockMs());
        else choice.lacks(endpoint, blob.digest);
      }
    }
  }

  /** The remembered target; undefined when this range is to ask the registry. The first to ask has the others wait. */
  async #findTarget(): Promise<URL | undefined> {
    const { blobUrl } = this;
    const { targets } = this.#client;
    if (this.#renewing !== undefined || this.does('one-time-targets')) return undefined;
    if (this.does('serves-itself')) return targets.get(blobUrl);
    const { target, leads } = await targets.find(blobUrl);
    if (leads) this.#renewing = blobUrl;
    return target;
  }

  async #turnTo(endpoint: number): Promise<void> {
    const { choice, options } = this.#client;
    const { blob, events } = this.#job;
    let left = endpoint;
    choice.enter(endpoint);
    try {
      const path = () => `/v2/${options.endpoints[endpoint]!.repository}/blobs/${blob.digest}`;
      const blobUrl = endpoint === 0 ? blob.url : `${await events.originOf(endpoint)}${path()}`;
      this.#authorization = await events.authorization(undefined, endpoint);
      left = this.endpoint;
      this.ended();
      this.endpoint = endpoint;
      this.blobUrl = blobUrl;
      this.renewals = 0;
      this.ranged = true;
    } finally {
      choice.leave(left);
    }
  }

  /** Whether another endpoint goes on, since this one cannot now, or not for `waitMs`. */
  #takeOver(waitMs?: number): Promise<boolean> {
    this.#client.choice.failed(this.endpoint, sharedClockMs(), waitMs);
    this.#tried.add(this.endpoint);
    return this.choose();
  }

  /**
   * Until the endpoint puts up with this range, too: what it told one range to wait holds for all of them, and those that
   * were under way when it asked to be asked less come back as others end.
   * @returns whether that took any time
   */
  async #untilWelcome(): Promise<boolean> {
    for (let waited = false; ; waited = true) {
      const waitMs = this.#client.choice.stepAsideMs(this.endpoint, sharedClockMs());
      // Ranges that wait for this one count as in flight: it would wait for them in turn.
      if (waitMs === undefined || (waitMs === 0 && this.#renewing !== undefined)) return waited;
      const told = { host: new URL(this.blobUrl).host, waitMs };
      bookWait(this.#client.options.waits, told, Date.now());
      // The range that was told has told it on, unless it turned to another endpoint, which is of no help any more.
      await this.#stepAside(waitMs, waitMs > SPREAD_MS ? told : undefined);
    }
  }

  /** Asks nothing for so long, and is not in flight meanwhile. */
  async #stepAside(waitMs: number, told: Wait | undefined): Promise<void> {
    const goOn = this.#job.events.pause(told);
    this.#client.choice.leave(this.endpoint);
    await sleep(waitMs + Math.random() * SPREAD_MS);
    this.#client.choice.enter(this.endpoint);
    goOn();
  }
}
